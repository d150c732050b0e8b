"""Products that may weigh values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._layout.axes import Axes, broadcast, foreign
from captum_attngrad.capture._layout.weighing import (
    Weighing,
    einsum_of,
    of_matmul,
    of_product,
)
from captum_attngrad.capture._softmax.followed import (
    Call,
    Followed,
    is_table,
    roles_of,
)
from captum_attngrad.capture._softmax.passing import see_unknown
from captum_attngrad.capture._softmax.tracks import Track, whole


def see_linear(followed: Followed, call: Call) -> None:
    tensor, weight, result = call.input, call.argument(1, "weight"), call.result
    if not (isinstance(tensor, Tensor) and isinstance(weight, Tensor)):
        return
    for track in followed.of(tensor):
        if track.kind != "weights" or not isinstance(result, Tensor):
            continue
        if track.dim == result.dim() - 1:
            if weight.dim() == 2:
                values = weight if is_table(weight) else weight.mT
                followed.weighs(track, values, of_matmul(tensor, weight.mT, False))
        else:  # a mixture of heads
            axes = (*track.axes[:-1], foreign(result.shape[-1]))
            followed.follow(result, replace(track, axes=axes))
    _see_features(followed, result)


def _see_features(followed: Followed, result: Any) -> None:
    """Take note of the output of a linear layer."""
    if isinstance(result, Tensor) and result.dim() and result.shape[-1] > 1:
        followed.follow(result, whole("linear", result, result.dim() - 1))


def see_matmul(followed: Followed, call: Call) -> None:
    _matmul(followed, *call.operands, call.result)


def see_reversed_matmul(followed: Followed, call: Call) -> None:
    right, left = call.operands
    _matmul(followed, left, right, call.result)


def see_matmul_add(followed: Followed, call: Call) -> None:
    _matmul(followed, *call._replace(args=call.args[1:]).operands, call.result)


def _matmul(followed: Followed, left: Any, right: Any, result: Any) -> None:
    if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return
    for tensor, other, reverse in ((left, right, False), (right, left, True)):
        contracted = max(tensor.dim() - 2, 0) if reverse else tensor.dim() - 1
        for track in followed.of(tensor):
            if track.kind == "lost":
                followed.weighs_unseen(track)
            elif track.softmax is None:
                continue
            elif track.dim != contracted:
                # Over another dimension than that of the softmax.
                followed.weighs_unseen(track, "matmul")
                followed.lose("matmul", track, result)
            elif other.dim() > 1:
                followed.weighs(track, other, of_matmul(tensor, other, reverse))
    if is_table(right):
        _see_features(followed, result)


def see_einsum(followed: Followed, call: Call) -> None:
    einsum, result = einsum_of(call.args), call.result
    if einsum is None:
        see_unknown(followed, call)
        return
    for i, operand in enumerate(einsum.operands):
        labels = einsum.labels[i]
        for track in followed.of(operand):
            if track.kind == "lost":
                followed.weighs_unseen(track)
            elif track.softmax is None:
                continue
            elif track.dim is None or len(set(labels)) < len(labels):
                followed.weighs_unseen(track, "einsum")
                followed.lose("einsum", track, result)
            else:
                found = einsum.weighing(i, track.dim)
                values: Any = None if found is None else einsum.operands[found[0]]
                weighing = None if found is None else found[1]
                if not einsum.keeps(i, track.dim):
                    if weighing is not None:
                        followed.weighs(track, values, weighing)
                    continue
                if found is None and einsum.contracts_others(i):
                    followed.weighs_unseen(track, "einsum")
                axes = tuple(
                    track.axes[labels.index(n)] if n in labels else foreign(size)
                    for n, size in zip(einsum.output, result.shape, strict=True)
                )
                dim = einsum.output.index(labels[track.dim])
                following = replace(track, axes=axes, dim=dim)
                _multiply(followed, track, following, values, weighing, result)
    if any(map(is_table, einsum.operands)) and len(einsum.operands) == 2:
        _see_features(followed, result)


def see_product(followed: Followed, call: Call) -> None:
    left, right = call.operands
    result = call.result
    if not isinstance(result, Tensor):
        return
    for tensor, other in ((left, right), (right, left)):
        for track in followed.of(tensor):
            if track.kind == "lost":
                if result.numel() > tensor.numel():
                    followed.weighs_unseen(track)
                followed.lose("mul", track, result)
            elif track.kind in ("weights", "products"):
                _product(followed, track, tensor, other, result)


def _product(
    followed: Followed, track: Track, tensor: Tensor, other: Any, result: Tensor
) -> None:
    offset = result.dim() - tensor.dim()
    dim = None if track.dim is None else track.dim + offset
    sizes = _sizes_of_weights(tensor, track.axes)
    keeps = dim is not None and result.shape[dim] == tensor.shape[dim - offset]
    grows = isinstance(other, Tensor) and result.numel() > math.prod(sizes)
    if grows and not keeps:
        # The keys are merged with other dimensions, or taken one by one.
        followed.weighs_unseen(track, "mul")
        followed.lose("mul", track, result)
        return
    values, weighing = None, None
    if (
        dim is not None
        and track.dim is not None
        and isinstance(other, Tensor)
        and _has_channels(sizes, other, result, dim)
    ):
        values, weighing = other, of_product(tensor, other, track.dim)
    following = replace(track, dim=dim, axes=broadcast(track.axes, result.shape))
    _multiply(followed, track, following, values, weighing, result)


def _multiply(
    followed: Followed,
    track: Track,
    following: Track,
    values: Tensor | None,
    weighing: Weighing | None,
    result: Any,
) -> None:
    """Weights times values, not yet summed over the keys (values None: times anything
    else)."""
    if values is not None and weighing is not None:
        if followed.excluded(track, values):
            return
        roles = (*track.roles, *roles_of(track, weighing))
        following = replace(following, kind="products", roles=roles)
        followed.note_values(track, values, weighing)
    followed.follow(result, following)


def _sizes_of_weights(weights: Tensor, axes: Axes) -> list[int]:
    """The shape without what the weights have been spread over by ``expand``."""
    return [
        1 if dim and not any(axis.stride for axis in dim) else size
        for size, dim in zip(weights.shape, axes, strict=True)
    ]


def _has_channels(weights: list[int], other: Tensor, result: Tensor, dim: int) -> bool:
    """Whether ``other`` brings channels of its own that weights of a shape are spread
    over (as values do, and a mask of the weights' own shape does not)."""
    if other.dtype == torch.bool:
        return False
    for i in range(result.dim()):
        j = i - (result.dim() - len(weights))
        size = weights[j] if j >= 0 else 1
        at = i - (result.dim() - other.dim())
        brought = at >= 0 and other.shape[at] > 1
        if i != dim and size == 1 and brought:
            k = dim - (result.dim() - other.dim())
            return k >= 0 and other.shape[k] == result.shape[dim]
    return False
