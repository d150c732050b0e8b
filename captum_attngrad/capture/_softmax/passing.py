"""Operations after which weights are still weights: elsewhere, or fewer of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from captum_attngrad.capture._layout.axes import broadcast, shaped
from captum_attngrad.capture._softmax import operations as ops
from captum_attngrad.capture._softmax.followed import Call, Followed
from captum_attngrad.capture._softmax.tracks import (
    Track,
    is_basic,
    moved,
    one_key_left,
    where_one_key_goes,
    whole,
    with_entries_taken,
)


def see_unknown(followed: Followed, call: Call) -> None:
    for tensor in call.tensors():
        for track in followed.of(tensor):
            if call.name in ops.CONTRACTIONS and track.softmax is not None:
                followed.weighs_unseen(track, call.name)
            followed.lose(call.name, track, call.result)


def see_elementwise(followed: Followed, call: Call) -> None:
    _elementwise(followed, call, call.input)
    if isinstance(call.input, Tensor) and not followed.of(call.input):
        see_unknown(followed, call)


def see_elementwise_of_several(followed: Followed, call: Call) -> None:
    for tensor in call.tensors():
        _elementwise(followed, call, tensor)


def _elementwise(followed: Followed, call: Call, tensor: Any) -> None:
    result = call.result
    if not isinstance(tensor, Tensor) or not isinstance(result, Tensor):
        return
    for track in followed.of(tensor):
        if call.name in ops.DROPOUT and track.softmax is not None:
            p = call.argument(1, "p", default=0.5)
            if call.argument(2, "training", default=True) and p > 0:
                track.softmax.dropped = True
        offset = result.dim() - tensor.dim()
        if offset < 0:
            continue
        dim = None if track.dim is None else track.dim + offset
        if track.kind == "lost":
            followed.lose(call.name, track, result)
        elif dim is not None and result.shape[dim] != tensor.shape[dim - offset]:
            followed.lose(call.name, track, result)  # one key is spread over several
        else:
            axes = broadcast(track.axes, result.shape)
            followed.follow(result, replace(track, dim=dim, axes=axes))


def see_shape(followed: Followed, call: Call) -> None:
    for track in followed.of(call.args[0] if call.args else None):
        fancy = call.name == "__getitem__" and not is_basic(call.args[1])
        if track.kind == "lost" or fancy or not _see_shape(followed, call, track):
            followed.lose(call.name, track, call.result)


def _see_shape(followed: Followed, call: Call, track: Track) -> bool:
    """Follow a track through a shape operation; False: it cannot be told how."""
    given = call.func, call.args, call.kwargs
    slices = call.name in ops.SLICE
    single = None
    try:
        found = shaped(*given, track.axes, slices)
        if track.key_axis.whole == 1:
            single = where_one_key_goes(*given, track)
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return False
    results = [call.result] if isinstance(call.result, Tensor) else list(call.result)
    for result, shape in zip(results, found, strict=True):
        following = None
        if shape is not None:
            following = moved(track, shape.axes, shape.first, single)
            if following is None and slices:
                following = one_key_left(*given, track, shape.axes)
        if following is None or shape is None:
            followed.lose(call.name, track, result)
            continue
        if slices:
            following = with_entries_taken(track, following, shape.first)
        followed.follow(result, following)
    return True


def see_written(followed: Followed, call: Call) -> None:
    """Weights are written into another tensor."""
    for track in followed.of(call.args[2]):
        followed.lose(call.name, track, call.args[0])


def see_stack(followed: Followed, call: Call) -> None:
    if isinstance(call.result, Tensor):
        dim = call.argument(1, "dim", default=0) % call.result.dim()
        followed.follow(call.result, whole("stack", call.result, dim))
        see_unknown(followed, call)


def see_topk(followed: Followed, call: Call) -> None:
    """The largest features of a linear layer are features of it."""
    best = call.result[0]
    for track in followed.of(call.input):
        dim = call.argument(2, "dim", default=-1) % best.dim()
        if track.kind == "linear" and track.dim == dim and best.shape[dim] > 1:
            followed.follow(best, whole("linear", best, dim))
    see_unknown(followed, call)


def see_sum(followed: Followed, call: Call) -> None:
    tensor, result = call.input, call.result
    if not isinstance(tensor, Tensor):
        return
    dims = call.argument(1, "axis", "dim")
    if not isinstance(dims, (int, list, tuple)):
        for track in followed.of(tensor):
            followed.lose(call.name, track, result)
        return
    dims = dims if isinstance(dims, (list, tuple)) else (dims,)
    summed = {d % tensor.dim() for d in dims} if tensor.dim() else set()
    for track in followed.of(tensor):
        if track.kind == "products" and _has_keys(track, summed):
            followed.is_attention(track, track.roles)
        elif track.kind == "lost" or (track.softmax is not None and track.dim is None):
            followed.lose(call.name, track, result)
        elif track.softmax is not None and track.dim not in summed:
            followed.follow(result, _summed(track, summed, result))


def _has_keys(track: Track, summed: set[int]) -> bool:
    """Whether a sum takes the dimension of the keys away, or one that it is part of."""
    key = track.key_axis
    if track.dim is not None or key.whole == 1:
        return track.dim in summed
    end = key.stride * key.whole
    dims = {
        i
        for i, dim in enumerate(track.axes)
        if any(key.stride <= axis.stride < end for axis in dim)
    }
    return dims <= summed


def _summed(track: Track, summed: set[int], result: Tensor) -> Track:
    """Weights after a sum over other dimensions than the keys, such as heads."""
    assert track.softmax is not None
    assert track.dim is not None
    for axis in (axis for dim in summed for axis in track.axes[dim] if axis.stride):
        track.softmax.selected.setdefault(axis.stride, set()).add(0)
    kept = result.dim() == len(track.axes)
    axes = tuple(
        () if dim in summed else each
        for dim, each in enumerate(track.axes)
        if kept or dim not in summed
    )
    dim = track.dim if kept else track.dim - sum(d < track.dim for d in summed)
    return replace(track, axes=axes, dim=dim)
