"""A softmax, and what is known about the tensors that are made from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._layout.axes import Axes, Axis, axes_of, without_data
from captum_attngrad.capture._layout.weighing import Role
from captum_attngrad.capture._softmax import operations as ops
from captum_attngrad.capture._softmax_call import SoftmaxCall


@dataclass
class Softmax:
    """A softmax that may turn out to be attention."""

    weights: Tensor
    dim: int
    scores: Tensor | None
    from_linear: bool  # over the output features of a linear layer
    source: Any
    site_index: int
    layer: str = ""
    dropped: bool = False  # an active dropout lies between the softmax and the values
    # Which entries weigh values; None until it is known to be attention.
    keys: range | None = None
    roles: dict[Axis, Role] = field(default_factory=dict)
    selected: dict[int, set[int]] = field(default_factory=dict)
    lost: str | None = None  # the operation after which it weighed values unseen
    call: SoftmaxCall | None = None


_ONE_KEY = Axis(1, 1, 1)


@dataclass(frozen=True)
class Track:
    """What is known about a tensor.

    ``dim`` is where the softmax dimension has gone (None: it is split or merged), and
    ``axes`` where all dimensions have.
    """

    # "weights", "products" (weights times values), "linear", "stack" or "lost"
    kind: str
    axes: Axes
    dim: int | None
    softmax: Softmax | None = None
    keys: range = range(0)  # which entries of the softmax dimension are left
    key_axis: Axis = _ONE_KEY
    # By stride of an axis of the softmax: which of its entries were taken, where its
    # dimension is gone; and the first that is left, where it is not.
    selected: dict[int, frozenset[int]] = field(default_factory=dict)
    start: dict[int, int] = field(default_factory=dict)
    roles: tuple[tuple[Axis, Role], ...] = ()  # of products
    unknown: str = ""  # the operation at which it was lost


def whole(kind: str, tensor: Tensor, dim: int, softmax: Softmax | None = None) -> Track:
    axes = axes_of(tensor.shape)
    size = tensor.shape[dim]
    axis = axes[dim][0] if axes[dim] else Axis(1, 1, 1)
    return Track(kind, axes, dim, softmax, range(size), axis)


def moved(
    track: Track, axes: Axes, first: dict[int, int], single: int | None
) -> Track | None:
    """The track after a shape operation; None: its keys cannot be followed."""
    key = track.key_axis
    if key.whole == 1:
        return replace(track, axes=axes, dim=single)
    end = key.stride * key.whole
    inside = [
        (i, axis)
        for i, dim in enumerate(axes)
        for axis in dim
        if key.stride <= axis.stride < end
    ]
    if not inside:
        # One key is left, and its dimension cannot be told from others.
        return None
    dims = {i for i, _ in inside}
    dim = dims.pop() if len(dims) == 1 else None
    if dim is not None:
        strides = [axis.stride for axis in axes[dim]]
        if len(strides) > len(inside) or strides != sorted(strides, reverse=True):
            dim = None  # merged with other dimensions, or in another order
    before = [a for each in track.axes for a in each if key.stride <= a.stride < end]
    start = track.keys.start
    start += sum(first.get(a.stride, 0) * (a.stride // key.stride) for a in before)
    last = start + sum((a.size - 1) * (a.stride // key.stride) for _, a in inside)
    step = min(axis.stride for _, axis in inside) // key.stride
    return replace(track, axes=axes, dim=dim, keys=range(start, last + 1, step))


def one_key_left(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], track: Track, axes: Axes
) -> Track | None:
    """The track after a slice that leaves one of several keys."""
    if track.dim is None or len(track.axes[track.dim]) != 1:
        return None
    # The same slice of a tensor in which only this dimension has a stride (of 2, so
    # that a new dimension, which has 0 or 1, is not taken for it).
    shape = [1] * args[0].dim()
    shape[track.dim] = size = args[0].shape[track.dim]
    probe = torch.empty(2 * size)[::2].view(shape).expand(args[0].shape)
    left = func(probe, *args[1:], **kwargs)
    if not isinstance(left, Tensor):
        return None
    dims = [dim for dim in range(left.dim()) if left.stride(dim) == 2]
    if len(dims) != 1:
        return None
    first = left.storage_offset() // 2
    keys = track.keys[first : first + 1]
    return replace(track, axes=axes, dim=dims[0], keys=keys, key_axis=Axis(1, 1, 1))


def where_one_key_goes(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], track: Track
) -> int | None:
    """Where a softmax dimension of size 1 is after a shape operation."""
    tensor, dim = args[0], track.dim
    if dim is None:
        return None
    shape = list(tensor.shape)
    if getattr(func, "__name__", "") not in ops.SIZED:
        shape[dim] = 2  # tells the key from other dimensions of 1
    probe = torch.empty(shape, device="meta")
    rest = [without_data(a) for a in args[1:]]
    moved = func(probe, *rest, **kwargs)
    if isinstance(moved, (list, tuple)) and moved:
        moved = moved[0]  # the others are like it
    if not isinstance(moved, Tensor):
        return None
    if getattr(func, "__name__", "") == "unflatten":
        at = args[1] % tensor.dim() if len(args) > 1 else kwargs["dim"] % tensor.dim()
        added = moved.dim() - tensor.dim()
        return None if at == dim else dim + (added if at < dim else 0)
    size, stride = shape[dim], probe.stride(dim)
    found = [
        i
        for i in range(moved.dim())
        if moved.shape[i] == size and (moved.stride(i) == stride or size == 1)
    ]
    if len(found) > 1:  # a reshape with one key: what is before it stays before it
        before = math.prod(tensor.shape[:dim])
        fitting = [i for i in found if math.prod(moved.shape[:i]) == before] or found
        from_end = dim - tensor.dim() + moved.dim()
        likely = (dim, from_end) if dim == 0 < tensor.dim() - 1 else (from_end, dim)
        return next((i for i in likely if i in fitting), fitting[0])
    return found[0] if found else None


def with_entries_taken(track: Track, following: Track, first: dict[int, int]) -> Track:
    """The track after a slice: which entries were taken of the dimensions that are
    gone, and where the others start."""
    before = {a.stride: a for dim in track.axes for a in dim if a.stride}
    after = {a.stride: a for dim in following.axes for a in dim}
    selected, start = dict(track.selected), dict(track.start)
    for stride, axis in before.items():
        at = start.get(stride, 0) + first.get(stride, 0)
        if stride not in after:
            selected[stride] = frozenset({at})
            if track.softmax is not None:
                track.softmax.selected.setdefault(stride, set()).add(at)
        elif after[stride].size < axis.size:
            start[stride] = at
    return replace(following, selected=selected, start=start)


def is_basic(index: Any) -> bool:
    indices = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is ... or isinstance(p, (int, slice)) for p in indices)
