r"""Copies of models, and models that use the parameters of a copy for a while."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class NotApplicableError(ValueError):
    """A change cannot be expressed with the parameters that a model has."""


def copied(model: nn.Module) -> nn.Module:
    """A copy with its own parameters."""
    with torch.no_grad():
        return copy.deepcopy(model)


def normal(like: Tensor, generator: torch.Generator, scale: float) -> Tensor:
    """Normal random numbers, drawn on the CPU so that every device gets the same."""
    return (torch.randn(like.shape, generator=generator) * scale).to(like)


def share_unchanged(model: nn.Module, changed: nn.Module) -> None:
    """Gives a copy, which is never run, the model's own parameters wherever the values
    are equal, so that it takes little memory."""
    for module, other in zip(model.modules(), changed.modules(), strict=True):
        for name, mine in module._parameters.items():
            theirs = other._parameters[name]
            if mine is not None and theirs is not None and torch.equal(mine, theirs):
                other._parameters[name] = mine


@contextmanager
def swapped_parameters(model: nn.Module, changed: nn.Module) -> Iterator[None]:
    r"""
    Inside the block ``model`` has the parameters of a changed copy, after it its own.

    So anything that refers to the model itself (an attribution method, a closure) can
    explain the changed one.

    Args:
        model (nn.Module): The model.
        changed (nn.Module): A copy of it with other parameters.

    Raises:
        ValueError: If the two do not have the same modules and shapes.

    Examples::

        >>> with swapped_parameters(model, add_key_constant(model)):
        ...     scores = method.attribute(input_ids, target=1)
    """
    pairs = list(zip(model.modules(), changed.modules(), strict=True))
    swaps = [
        (module, name, parameter, other._parameters[name])
        for module, other in pairs
        for name, parameter in module._parameters.items()
        if other._parameters[name] is not parameter
    ]
    for module, name, mine, theirs in swaps:
        if mine is not None and (theirs is None or mine.shape != theirs.shape):
            raise ValueError(
                f"The parameter {name!r} of {type(module).__name__} differs in shape "
                "from the copy's; expected a changed copy of the same model."
            )
    # The values move, not the parameters: recurrent layers and optimizers keep
    # references to those.
    own = [None if mine is None else mine.detach().clone() for _, _, mine, _ in swaps]
    try:
        with torch.no_grad():
            for module, name, mine, theirs in swaps:
                if mine is not None and theirs is not None:
                    mine.copy_(theirs)
                elif theirs is not None:
                    setattr(module, name, theirs)
        yield
    finally:
        with torch.no_grad():
            for (module, name, mine, _), values in zip(swaps, own, strict=True):
                if mine is not None and values is not None:
                    mine.copy_(values)
                else:
                    setattr(module, name, None)


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """A block in which recurrent layers can be differentiated in evaluation mode:
    cuDNN refuses that, PyTorch's own kernels do not."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    enabled = torch.backends.cudnn.enabled and not recurrent
    with torch.backends.cudnn.flags(enabled=enabled):
        yield
