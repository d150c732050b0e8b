"""Where the dimensions of a tensor go when it is reshaped, permuted or sliced.

Each dimension is a product of axes of the original tensor, outermost first. A shape
operation is done once more on a tensor without data; the strides of the result tell
which axes each of its dimensions is made of.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

_FOREIGN = 0  # the stride of what was not in the original (a dimension of expand)


class Axis(NamedTuple):
    """Entries of the original tensor that lie ``stride`` apart in its flat order.

    ``size`` of them are left of ``whole``.
    """

    stride: int
    size: int
    whole: int


# The axes of each dimension of a tensor; none where its size is 1.
Axes = tuple[tuple[Axis, ...], ...]


class Shaped(NamedTuple):
    """One result of a shape operation."""

    axes: Axes
    first: dict[int, int]  # by stride of each axis: the first entry that is left


def axes_of(shape: tuple[int, ...]) -> Axes:
    """The axes of an original: one for each dimension."""
    found: list[tuple[Axis, ...]] = []
    stride = 1
    for size in reversed(shape):
        found.append((Axis(stride, size, size),) if size != 1 else ())
        stride *= max(size, 1)
    return tuple(reversed(found))


def foreign(size: int) -> tuple[Axis, ...]:
    """A dimension that the original does not have."""
    return (Axis(_FOREIGN, size, size),) if size != 1 else ()


def broadcast(axes: Axes, shape: tuple[int, ...]) -> Axes:
    """The axes after broadcasting to a shape."""
    missing = len(shape) - len(axes)
    return tuple(
        axes[i - missing] if i >= missing and axes[i - missing] else foreign(size)
        for i, size in enumerate(shape)
    )


def without_data(argument: Any) -> Any:
    """Arguments of a shape operation for an operand without data. Sizes that are given
    as tensors become numbers."""
    if isinstance(argument, Tensor):
        return int(argument) if argument.dim() == 0 else argument.to("meta")
    if isinstance(argument, (list, tuple)):
        return type(argument)(without_data(each) for each in argument)
    return argument


def shaped(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    axes: Axes,
    slices: bool,
) -> list[Shaped | None]:
    """The axes of each result of a shape operation whose first argument has ``axes``;
    None where they cannot be told.

    Args:
        slices (bool): the operation takes some entries; otherwise it keeps them all.
    """
    probe = torch.empty(
        [math.prod(axis.size for axis in dim) for dim in axes], device="meta"
    )
    kwargs = {name: without_data(value) for name, value in kwargs.items()}
    results = func(probe, *(without_data(a) for a in args[1:]), **kwargs)
    if isinstance(results, Tensor):
        results = (results,)
    flat = [axis for dim in axes for axis in dim]
    steps = []  # how far apart the entries of each axis are in the operand
    step = 1
    for axis in reversed(flat):
        steps.append(step)
        step *= max(axis.size, 1)
    steps.reverse()
    return [_read(result, flat, steps, slices) for result in results]


def _read(
    result: Tensor, flat: list[Axis], steps: list[int], slices: bool
) -> Shaped | None:
    dims = []
    for size, stride in zip(result.shape, result.stride(), strict=True):
        found = _axes_at(size, stride, flat, steps, slices)
        if found is None:
            return None
        dims.append(found)
    offset = result.storage_offset()
    first = {
        axis.stride: offset // step % max(axis.size, 1)
        for axis, step in zip(flat, steps, strict=True)
    }
    return Shaped(tuple(dims), first)


def _axes_at(
    size: int, stride: int, flat: list[Axis], steps: list[int], slices: bool
) -> tuple[Axis, ...] | None:
    """The axes behind one dimension of a result, from its size and stride."""
    if size == 1:
        return ()
    if stride == 0:
        return foreign(size)
    at = next((i for i, step in enumerate(steps) if step <= stride), None)
    if at is None or stride % steps[at]:
        return None
    within, found, left = stride // steps[at], [], size
    while at >= 0:
        axis = flat[at]
        here = axis.size // within
        if left <= here or axis.size % within:
            whole = left
            if within == 1 and (slices or left == axis.size):
                whole = axis.whole
            found.append(Axis(axis.stride * within, left, whole))
            return tuple(reversed(found))
        if here == 0 or left % here:
            return None
        found.append(
            Axis(axis.stride * within, here, axis.whole if within == 1 else here)
        )
        left //= here
        at, within = at - 1, 1
    return None
