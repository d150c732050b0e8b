"""From the model's output to the score that is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum._utils.common import _select_targets
from captum._utils.typing import TargetType
from torch import Tensor

LossFunction = Callable[[Tensor, Any], Tensor]


def output_tensor(output: Any) -> Tensor:
    """The tensor in what the model returned; Hugging Face models return ``.logits``."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise TypeError(
        f"forward_func returned {type(output).__name__}, expected a Tensor (or a model "
        "output with .logits). Wrap the model in a function that returns the tensor "
        "to explain, and pass the attention modules as layer."
    )


def target_scores(output: Tensor, target: TargetType) -> Tensor:
    """``output[target]``, one number for each example.

    Raises:
        ValueError: if the target is missing, of the wrong form or out of range.
    """
    shape = tuple(output.shape)
    if target is None:
        if output.dim() and output[:1].numel() > 1:
            raise ValueError(
                f"target is missing: forward_func returned shape {shape}, more than "
                "one number per example. Pass target (for two classes or more, the "
                "index of the class to explain)."
            )
        return output.reshape(-1)
    _check_range(output, target)
    try:
        selected = _select_targets(output, target)
    except (AssertionError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"target={target!r} does not fit the output of forward_func, which has "
            f"shape {shape}: {error}"
        ) from error
    if selected.dim() and selected[:1].numel() > 1:
        raise ValueError(
            f"target={target!r} selects more than one number per example from an "
            f"output of shape {shape}. Pass a tuple with {output.dim() - 1} indices."
        )
    return selected.reshape(-1)


def loss_scores(output: Tensor, target: Any, loss_func: LossFunction) -> Tensor:
    """``-loss``, one number for each example.

    A loss that is reduced to one number for the whole batch is computed example by
    example, so that a score does not depend on what else is in the batch.
    """
    size = output.shape[0]
    if isinstance(target, int):
        target = torch.full((size,), target, device=output.device)
    elif isinstance(target, list):
        target = torch.tensor(target, device=output.device)
    elif isinstance(target, Tensor) and target.numel() == 1 and size != 1:
        target = target.reshape(1).expand(size)
    loss = loss_func(output, target)
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss_func returned {type(loss).__name__}, expected a Tensor.")
    if loss.numel() == 1 and size > 1:
        loss = torch.stack(
            [
                loss_func(
                    output[i : i + 1],
                    target[i : i + 1] if isinstance(target, Tensor) else target,
                ).reshape(())
                for i in range(size)
            ]
        )
    if loss.numel() != size:
        raise ValueError(
            f"loss_func returned shape {tuple(loss.shape)} for {size} examples: it "
            "must return one number, or one number for each example (reduction='none')."
        )
    return -loss.reshape(-1)


def _check_range(output: Tensor, target: TargetType) -> None:
    if output.dim() < 2:
        return
    if isinstance(target, Tensor):
        indices = [int(i) for i in target.detach().reshape(-1).tolist()]
    elif isinstance(target, int):
        indices = [target]
    elif isinstance(target, list) and all(isinstance(t, int) for t in target):
        indices = [t for t in target if isinstance(t, int)]
    else:
        return
    classes = output.shape[1]
    for index in indices:
        if not -classes <= index < classes:
            raise ValueError(
                f"target {index} is out of range: forward_func returned shape "
                f"{tuple(output.shape)}, so targets go from 0 to {classes - 1}."
            )
