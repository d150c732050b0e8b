r"""A model that for a while has the parameters of another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def share_unchanged(model: nn.Module, changed: nn.Module) -> None:
    """Lets a copy that will only be lent from, and never run, have the model's own
    parameters where their values are the same; so it takes little memory."""
    for module, other in zip(model.modules(), changed.modules(), strict=True):
        for name, mine in module._parameters.items():
            theirs = other._parameters[name]
            if mine is not None and theirs is not None and torch.equal(mine, theirs):
                other._parameters[name] = mine


@contextmanager
def borrowed_parameters(model: nn.Module, changed: nn.Module) -> Iterator[None]:
    r"""
    Inside the block ``model`` has the parameters of a changed copy, after it its own.

    This lets anything that holds on to the model itself (an attribution method, a
    closure) explain the changed one.

    Args:
        model (nn.Module): The model.
        changed (nn.Module): A copy of it with other parameters.

    Raises:
        ValueError: If the two do not have the same modules and shapes.

    Examples::

        >>> with borrowed_parameters(model, add_key_constant(model)):
        ...     scores = method.attribute(input_ids, target=1)
    """
    pairs = list(zip(model.modules(), changed.modules(), strict=True))
    places = [
        (module, name, parameter, other._parameters[name])
        for module, other in pairs
        for name, parameter in module._parameters.items()
        if other._parameters[name] is not parameter
    ]
    for module, name, mine, theirs in places:
        if mine is not None and (theirs is None or mine.shape != theirs.shape):
            raise ValueError(
                f"The parameter {name!r} of {type(module).__name__} differs in shape "
                "from the copy's; expected a changed copy of the same model."
            )
    # The values move, not the parameters: recurrent layers and optimisers keep
    # references to those.
    own = [None if mine is None else mine.detach().clone() for _, _, mine, _ in places]
    try:
        with torch.no_grad():
            for module, name, mine, theirs in places:
                if mine is not None and theirs is not None:
                    mine.copy_(theirs)
                elif theirs is not None:
                    setattr(module, name, theirs)
        yield
    finally:
        with torch.no_grad():
            for (module, name, mine, _), values in zip(places, own, strict=True):
                if mine is not None and values is not None:
                    mine.copy_(values)
                else:
                    setattr(module, name, None)
