"""From the model's output to the score that is explained."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_attngrad._captum import TargetType, selected_outputs

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


def target_scores(output: Tensor, target: TargetType, examples: int) -> Tensor:
    """``output[target]``, one number for each example.

    Raises:
        ValueError: if the target is missing, of the wrong form or out of range, or the
            output does not have one row for each example.
    """
    output = _row_by_row(output, examples)
    shape = tuple(output.shape)
    if target is None:
        if output[:1].numel() > 1:
            raise ValueError(
                f"target is missing: forward_func returned shape {shape}, more than "
                "one number per example. Pass target (for two classes or more, the "
                "index of the class to explain)."
            )
        return output.reshape(-1)
    unfit = (
        f"target={target!r:.200} does not fit the output of forward_func, which has "
        f"shape {shape}: "
    )
    try:
        index = _index(target, examples)
    except ValueError as error:
        raise ValueError(f"{unfit}{error}") from None
    _check_range(output, index)
    try:
        selected = selected_outputs(output, index)
    except (AssertionError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(f"{unfit}{error}") from error
    if selected.dim() and selected[:1].numel() > 1:
        raise ValueError(
            f"target={target!r:.200} selects more than one number per example from an "
            f"output of shape {shape}. Pass a tuple with {output.dim() - 1} indices."
        )
    return selected.reshape(-1)


def loss_scores(
    output: Tensor, target: Any, loss_func: LossFunction, examples: int
) -> Tensor:
    """``-loss``, one number for each example.

    A loss that is reduced to one number for the whole batch is computed example by
    example, so that a score does not depend on what else is in the batch.

    Raises:
        ValueError: if labels and examples differ in number, labels are not what
            ``loss_func`` takes, or it does not return one number for each example.
    """
    output = _row_by_row(output, examples)
    target = _labels(target, output)
    loss = _loss(loss_func, output, target)
    if loss.numel() == 1 and examples > 1:
        loss = torch.stack(
            [
                _loss(
                    loss_func, output[i : i + 1], _labels_of(target, i, examples)
                ).reshape(())
                for i in range(examples)
            ]
        )
    if loss.numel() != examples:
        raise ValueError(
            f"loss_func returned shape {tuple(loss.shape)} for {examples} examples: it "
            "must return one number, or one number for each example "
            "(reduction='none')."
        )
    return -loss.reshape(-1)


def _row_by_row(output: Tensor, examples: int) -> Tensor:
    """The output, if it has one row for each example. For one example, a number without
    a dimension is allowed, as in Captum."""
    if output.is_complex():
        raise ValueError(
            f"forward_func returned {output.dtype}: a score is a real number. Return "
            "its real part or its absolute value."
        )
    if not output.dim():
        output = output.reshape(1)
    if len(output) != examples:
        raise ValueError(
            f"forward_func returned {_count(len(output), 'row')} (shape "
            f"{tuple(output.shape)}) for {_count(examples, 'example')} (dimension 0 of "
            "the inputs): it must return one row for each example, in their order. "
            "Take no mean or sum over the batch in it, and select no examples."
        )
    return output


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


# -- targets ------------------------------------------------------------------------

_INDEX = "an index must be an integer"
_FORMS = (
    "Pass one integer (or tuple) for all examples, or a list or 1D tensor with one for "
    "each."
)


def _is_integer(value: Any) -> bool:
    """Also one of numpy's, but not a bool, which would be class 0 or 1."""
    return hasattr(type(value), "__index__") and not isinstance(value, (bool, Tensor))


def _index(target: Any, examples: int) -> Any:
    """A target in one of Captum's forms, in plain integers."""
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex():
            raise ValueError(f"{_INDEX}, got {target.dtype}.")
        if target.dtype == torch.bool:
            raise ValueError(f"{_INDEX}, got booleans.")
        if target.numel() == 1:
            return int(target.item())
        if target.dim() != 1 or len(target) != examples:
            raise ValueError(
                f"it has shape {tuple(target.shape)} for {examples} examples. {_FORMS}"
            )
        return target.long()
    if _is_integer(target):
        return operator.index(target)
    if isinstance(target, tuple):
        return tuple(i if isinstance(i, slice) else _one_index(i) for i in target)
    if not isinstance(target, list):
        raise ValueError(f"{_INDEX}, got {type(target).__name__}.")
    if len(target) != examples:
        raise ValueError(
            f"it holds {len(target)} entries for {examples} examples. {_FORMS}"
        )
    if all(isinstance(entry, tuple) for entry in target):
        return [tuple(map(_one_index, entry)) for entry in target]
    return list(map(_one_index, target))


def _one_index(value: Any) -> int:
    if isinstance(value, Tensor) and value.numel() == 1:
        return int(_index(value, 1))
    if not _is_integer(value):
        raise ValueError(f"{_INDEX}, got {value!r:.80} ({type(value).__name__}).")
    return operator.index(value)


def _check_range(output: Tensor, target: Any) -> None:
    """Check targets that index dimension 1 alone; indexing itself checks tuples."""
    if output.dim() < 2:
        return
    indices = target.tolist() if isinstance(target, Tensor) else target
    classes = output.shape[1]
    for index in indices if isinstance(indices, list) else [indices]:
        if isinstance(index, int) and not -classes <= index < classes:
            raise ValueError(
                f"target {index} is out of range: forward_func returned shape "
                f"{tuple(output.shape)}, so targets go from 0 to {classes - 1}."
            )


# -- labels of a loss ---------------------------------------------------------------


def _labels(target: Any, output: Tensor) -> Any:
    """The second argument of ``loss_func``: for numbers, a tensor with one for each
    example; for anything else, what the caller has passed."""
    examples = len(output)
    numbers = target if isinstance(target, list) else [target]
    if any(isinstance(number, bool) for number in numbers):
        raise ValueError(
            f"target={target!r:.200} holds a bool, expected labels as loss_func takes "
            "them: pass the number of the class (or a tensor)."
        )
    if _is_integer(target):
        return torch.full((examples,), operator.index(target), device=output.device)
    if isinstance(target, float):
        return output.new_full((examples,), target)
    if isinstance(target, list):
        try:
            target = torch.tensor(target)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"target={target!r:.200} cannot be converted to a tensor of labels, "
                f"with one for each example: {error}"
            ) from error
        kind = output.dtype if target.is_floating_point() else target.dtype
        target = target.to(output.device, kind)
        _check_number(target, examples)
    elif isinstance(target, Tensor):
        if target.numel() == 1 and examples != 1:
            return target.reshape(1).expand(examples)
        if target.dim() == 1 and not target.is_floating_point():
            _check_number(target, examples)
    return target


def _check_number(labels: Tensor, examples: int) -> None:
    if len(labels) != examples:
        raise ValueError(
            f"target holds {len(labels)} labels for {examples} examples. Pass one for "
            "all of them, or one for each."
        )


def _labels_of(target: Any, example: int, examples: int) -> Any:
    """What belongs to one example, as a batch of one."""
    if isinstance(target, tuple):
        return tuple(
            part[example : example + 1]
            if isinstance(part, Tensor) and part.dim() and len(part) == examples
            else part
            for part in target
        )
    if not isinstance(target, Tensor):
        return target
    if not target.dim() or len(target) != examples:
        raise ValueError(
            f"loss_func returns one number for all {examples} examples, and target has "
            f"shape {tuple(target.shape)}, which does not show the labels of each "
            "example. Pass labels with the examples in dimension 0, or a loss_func "
            "that returns one number for each example (reduction='none')."
        )
    return target[example : example + 1]


def _loss(loss_func: LossFunction, output: Tensor, target: Any) -> Tensor:
    try:
        loss = loss_func(output, target)
    except (IndexError, RuntimeError, TypeError) as error:
        is_out_of_memory = isinstance(error, torch.cuda.OutOfMemoryError)
        if is_out_of_memory or not _labels_may_be_wrong(target, error):
            raise
        raise ValueError(
            f"loss_func failed with labels of {target.dtype} and shape "
            f"{tuple(target.shape)} on an output of shape {tuple(output.shape)}: "
            f"{error} Pass target as loss_func takes it (for cross_entropy, the numbers"
            " of the classes, as integers)."
        ) from error
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss_func returned {type(loss).__name__}, expected a Tensor.")
    return loss


def _labels_may_be_wrong(target: Any, error: Exception) -> bool:
    """Whether the labels, and not a mistake in loss_func, are the likely cause."""
    return isinstance(target, Tensor) and (
        target.is_floating_point()
        or target.dtype == torch.bool
        or isinstance(error, IndexError)
    )
