"""Recognise attention that is written out: a softmax whose result weighs values.

A softmax is followed through what may stand between it and the values (dropout, a
cast, a reshape, a mask). It counts as attention once its own dimension is summed
away in a product with values: ``weights @ values``, ``einsum``, or
``(weights * values).sum(dim)``. The product says what the other dimensions are. A
classifier's output softmax is never multiplied by values; the router of a mixture of
experts is told apart in ``_values_excluded``.

A softmax that weighs values only after an operation that is not known here is lost, and
said to be.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._layout.axes import (
    Axes,
    Axis,
    broadcast,
    foreign,
    shaped,
)
from captum_attngrad.capture._layout.weighing import (
    Role,
    Use,
    Weighing,
    einsum_of,
    of_matmul,
    of_product,
)
from captum_attngrad.capture._softmax import operations as ops
from captum_attngrad.capture._softmax.tracks import (
    Softmax,
    Track,
    is_basic,
    moved,
    one_key_left,
    where_one_key_goes,
    whole,
    with_entries_taken,
)

_DATA = getattr(torch.Tensor.data, "__get__")  # noqa: B009

# What was weighed: (softmax, values, how).
SeeValues = Callable[[Softmax, Tensor, Use], None]


class WrittenOutAttention:
    """Follows softmax results through the operations of one thread."""

    def __init__(self, see_values: SeeValues | None = None) -> None:
        self._tracks: dict[int, tuple[weakref.ref[Tensor], list[Track]]] = {}
        self._found: list[Softmax] = []
        self._see_values = see_values
        self.lost: list[Softmax] = []

    def clear(self) -> None:
        self._tracks.clear()

    def started(self, result: Tensor, softmax: Softmax) -> None:
        """Follow the result of a softmax."""
        self._follow(result, whole("weights", result, softmax.dim, softmax))

    def is_linear_feature(self, scores: Tensor, dim: int) -> bool:
        return scores.shape[dim] > 1 and any(
            track.kind == "linear" and track.dim == dim % scores.dim()
            for track in self._of(scores)
        )

    def see(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> list[Softmax]:
        """Take note of one operation that has just run.

        Returns the softmaxes that it shows to be attention, or of which it shows that
        more entries weigh values than were known.
        """
        name = getattr(func, "__name__", "")
        if name == "linear":
            self._see_linear(args, kwargs, result)
        elif name == "stack" and isinstance(result, Tensor):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            self._follow(result, whole("stack", result, dim % result.dim()))
            self._see_unknown(name, args, kwargs, result)
        elif self._tracks:
            self._see(name, func, args, kwargs, result)
        if not self._found:
            return self._found
        found, self._found = self._found, []
        return found

    def _see(
        self,
        name: str,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> None:
        if name == "einsum":
            self._see_einsum(args, result)
        elif name in ops.MATMUL:
            self._see_matmul(*_two(args, kwargs), result)
        elif name in ops.REVERSED_MATMUL:
            right, left = _two(args, kwargs)
            self._see_matmul(left, right, result)
        elif name in ops.MATMUL_ADD:
            self._see_matmul(*_two(args[1:], kwargs), result)
        elif name in ops.PRODUCT:
            self._see_product(*_two(args, kwargs), result)
        elif name in ops.SUM:
            self._see_sum(name, args, kwargs, result)
        elif name in ops.ELEMENTWISE:
            tensor = args[0] if args else kwargs.get("input")
            self._see_elementwise(name, tensor, args, kwargs, result)
            if isinstance(tensor, Tensor) and not self._of(tensor):
                self._see_unknown(name, args, kwargs, result)
        elif name in ops.ELEMENTWISE_OF_SEVERAL:
            for tensor in _tensors(args, kwargs):
                self._see_elementwise(name, tensor, args, kwargs, result)
        elif name in ops.SLICE:
            self._see_shape(name, func, args, kwargs, result, slices=True)
        elif name in ops.RESHAPE or (name == "__get__" and func in ops.PROPERTIES):
            self._see_shape(name, func, args, kwargs, result, slices=False)
        elif name == "__setitem__":
            for track in list(self._of(args[2])):
                self._lose(name, track, args[0])
        elif name == "__get__" and func is _DATA:
            self._see_elementwise(name, args[0], args, kwargs, result)
        elif name not in ops.QUESTIONS:
            if name == "topk":
                self._see_topk(args, kwargs, result)
            self._see_unknown(name, args, kwargs, result)

    # -- bookkeeping ------------------------------------------------------------------

    def _of(self, tensor: Any) -> list[Track]:
        entry = self._tracks.get(id(tensor))
        return [] if entry is None else entry[1]

    def _follow(self, tensor: Any, track: Track) -> None:
        if not isinstance(tensor, Tensor):
            return
        key = id(tensor)
        tracks = self._tracks
        known = tracks.get(key)
        if known is not None:
            # One tensor may hold several softmaxes, but one of them only in one way.
            others = [t for t in known[1] if t.softmax is not track.softmax]
            tracks[key] = (known[0], [*others, track])
            return

        def forget(_: Any) -> None:
            tracks.pop(key, None)

        tracks[key] = (weakref.ref(tensor, forget), [track])

    def _lose(self, name: str, track: Track, result: Any) -> None:
        if track.softmax is None:
            return
        unknown = track.unknown or name
        for tensor in _tensors((result,), {}):
            if tensor.is_floating_point():
                self._follow(tensor, replace(track, kind="lost", unknown=unknown))

    def _see_unknown(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        for tensor in _tensors(args, kwargs):
            for track in list(self._of(tensor)):
                if name in ops.CONTRACTIONS and track.softmax is not None:
                    self._weighs_unseen(track, name)
                self._lose(name, track, result)

    def _weighs_unseen(self, track: Track, name: str = "") -> None:
        softmax = track.softmax
        if softmax is not None and softmax.keys is None and not softmax.from_linear:
            if softmax.lost is None:
                self.lost.append(softmax)
            softmax.lost = softmax.lost or track.unknown or name

    # -- operations that keep the weights weights -------------------------------------

    def _see_elementwise(
        self,
        name: str,
        tensor: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> None:
        if not isinstance(tensor, Tensor) or not isinstance(result, Tensor):
            return
        for track in list(self._of(tensor)):
            if name in ops.DROPOUT and track.softmax is not None:
                p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
                training = kwargs.get("training", args[2] if len(args) > 2 else True)
                if training and p > 0:
                    track.softmax.dropped = True
            offset = result.dim() - tensor.dim()
            if offset < 0:
                continue
            dim = None if track.dim is None else track.dim + offset
            if track.kind == "lost":
                self._lose(name, track, result)
            elif dim is None or result.shape[dim] == tensor.shape[dim - offset]:
                axes = broadcast(track.axes, result.shape)
                self._follow(result, replace(track, dim=dim, axes=axes))
            else:  # one key, spread over several
                self._lose(name, track, result)

    def _see_shape(
        self,
        name: str,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        slices: bool,
    ) -> None:
        tensor = args[0] if args else None
        for track in list(self._of(tensor)):
            fancy = name == "__getitem__" and not is_basic(args[1])
            if track.kind == "lost" or fancy:
                self._lose(name, track, result)
                continue
            results = [result] if isinstance(result, Tensor) else list(result)
            try:
                found = shaped(func, args, kwargs, track.axes, slices)
                single = (
                    where_one_key_goes(func, args, kwargs, track)
                    if track.key_axis.whole == 1
                    else None
                )
            except (RuntimeError, TypeError, ValueError, NotImplementedError):
                self._lose(name, track, result)
                continue
            for left, part in zip(results, found, strict=True):
                following = None
                if part is not None:
                    following = moved(track, part.axes, part.first, single)
                    if following is None and slices:
                        following = one_key_left(func, args, kwargs, track, part.axes)
                if following is None or part is None:
                    self._lose(name, track, left)
                    continue
                if slices:
                    following = with_entries_taken(track, following, part.first)
                self._follow(left, following)

    def _see_topk(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """The largest features of a linear layer are features of it."""
        for track in self._of(args[0] if args else kwargs.get("input")):
            dim = kwargs.get("dim", args[2] if len(args) > 2 else -1)
            best = result[0]
            of_linear = track.kind == "linear" and track.dim == dim % best.dim()
            if of_linear and best.shape[dim] > 1:
                self._follow(best, whole("linear", best, dim % best.dim()))

    # -- products with values ---------------------------------------------------------

    def _see_linear(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        tensor = args[0] if args else kwargs.get("input")
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        if not (isinstance(tensor, Tensor) and isinstance(weight, Tensor)):
            return
        for track in list(self._of(tensor)):
            if track.kind != "weights" or not isinstance(result, Tensor):
                continue
            if track.dim == result.dim() - 1:
                if weight.dim() == 2:
                    values = weight if _is_table(weight) else weight.mT
                    how = of_matmul(tensor, weight.mT, False)
                    self._weighs(track, tensor, values, how)
            else:  # a mixture of heads
                axes = (*track.axes[:-1], foreign(result.shape[-1]))
                self._follow(result, replace(track, axes=axes))
        self._see_features(result)

    def _see_features(self, result: Any) -> None:
        """Take note of the output of a linear layer."""
        if isinstance(result, Tensor) and result.dim() and result.shape[-1] > 1:
            self._follow(result, whole("linear", result, result.dim() - 1))

    def _see_matmul(self, left: Any, right: Any, result: Any) -> None:
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return
        for tensor, other, reverse in ((left, right, False), (right, left, True)):
            contracted = max(tensor.dim() - 2, 0) if reverse else tensor.dim() - 1
            for track in list(self._of(tensor)):
                if track.kind == "lost":
                    self._weighs_unseen(track)
                elif track.softmax is None:
                    continue
                elif track.dim == contracted:
                    if other.dim() > 1:
                        how = of_matmul(tensor, other, reverse)
                        self._weighs(track, tensor, other, how)
                else:  # over another dimension than that of the softmax
                    self._weighs_unseen(track, "matmul")
                    self._lose("matmul", track, result)
        if _is_table(right):
            self._see_features(result)

    def _see_einsum(self, args: tuple[Any, ...], result: Any) -> None:
        einsum = einsum_of(args)
        if einsum is None:
            self._see_unknown("einsum", (args,), {}, result)
            return
        for i, operand in enumerate(einsum.operands):
            for track in list(self._of(operand)):
                own = einsum.labels[i]
                if track.kind == "lost":
                    self._weighs_unseen(track)
                elif track.softmax is None:
                    continue
                elif track.dim is None or len(set(own)) < len(own):
                    self._weighs_unseen(track, "einsum")
                    self._lose("einsum", track, result)
                else:
                    found = einsum.weighing(i, track.dim)
                    if einsum.keeps(i, track.dim):
                        if found is None and einsum.contracts_others(i):
                            self._weighs_unseen(track, "einsum")
                        axes = tuple(
                            track.axes[own.index(name)] if name in own else foreign(n)
                            for name, n in zip(einsum.output, result.shape, strict=True)
                        )
                        dim = einsum.output.index(own[track.dim])
                        following = replace(track, axes=axes, dim=dim)
                        values = None if found is None else einsum.operands[found[0]]
                        how = None if found is None else found[1]
                        self._multiply(track, following, values, how, result)
                    elif found is not None:
                        self._weighs(
                            track, operand, einsum.operands[found[0]], found[1]
                        )
        tables = [o for o in einsum.operands if _is_table(o)]
        if tables and len(einsum.operands) == 2:
            self._see_features(result)

    def _see_product(self, left: Any, right: Any, result: Any) -> None:
        if not isinstance(result, Tensor):
            return
        for tensor, other in ((left, right), (right, left)):
            for track in list(self._of(tensor)):
                if track.kind == "lost":
                    if result.numel() > tensor.numel():
                        self._weighs_unseen(track)
                    self._lose("mul", track, result)
                elif track.kind in ("weights", "products"):
                    self._multiplied(track, tensor, other, result)

    def _multiplied(
        self, track: Track, tensor: Tensor, other: Any, result: Tensor
    ) -> None:
        offset = result.dim() - tensor.dim()
        dim = None if track.dim is None else track.dim + offset
        spread = _own_shape(tensor, track.axes)
        apart = dim is None or result.shape[dim] != tensor.shape[dim - offset]
        if apart and isinstance(other, Tensor) and result.numel() > math.prod(spread):
            # The keys are merged with other dimensions, or taken one by one.
            self._weighs_unseen(track, "mul")
            self._lose("mul", track, result)
            return
        values, how = None, None
        if (
            dim is not None
            and isinstance(other, Tensor)
            and _has_channels(spread, other, result, dim)
        ):
            assert track.dim is not None
            values, how = other, of_product(tensor, other, track.dim)
        axes = broadcast(track.axes, result.shape)
        self._multiply(track, replace(track, dim=dim, axes=axes), values, how, result)

    def _multiply(
        self,
        track: Track,
        following: Track,
        values: Tensor | None,
        how: Weighing | None,
        result: Any,
    ) -> None:
        """Weights times values, not yet summed over the keys (values None: times
        anything else)."""
        if values is not None and how is not None:
            if self._values_excluded(track, values):
                return
            roles = _roles(how, track.axes)
            following = replace(
                following, kind="products", roles=(*track.roles, *roles)
            )
            self._note_values(track, values, how)
        self._follow(result, following)

    def _see_sum(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        tensor = args[0] if args else kwargs.get("input")
        if not isinstance(tensor, Tensor):
            return
        dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        if dims is None or not isinstance(dims, (int, list, tuple)):
            for track in list(self._of(tensor)):
                self._lose(name, track, result)
            return
        dims = dims if isinstance(dims, (list, tuple)) else (dims,)
        summed = {d % tensor.dim() for d in dims} if tensor.dim() else set()
        for track in list(self._of(tensor)):
            if track.kind == "lost":
                self._lose(name, track, result)
            elif track.kind == "products" and _has_keys(track, summed):
                self._is_attention(track, track.roles)
            elif track.softmax is None or track.dim in summed:
                continue
            elif track.dim is None:
                self._lose(name, track, result)
            else:
                self._follow(result, self._summed(track, summed, result))

    def _summed(self, track: Track, summed: set[int], result: Tensor) -> Track:
        """Weights after a sum over other dimensions than the keys, such as heads."""
        assert track.softmax is not None
        assert track.dim is not None
        for dim in summed:
            for axis in track.axes[dim]:
                if axis.stride:
                    track.softmax.selected.setdefault(axis.stride, set()).add(0)
        kept = result.dim() == len(track.axes)
        axes = tuple(
            () if dim in summed else each
            for dim, each in enumerate(track.axes)
            if kept or dim not in summed
        )
        dim = track.dim if kept else track.dim - sum(d < track.dim for d in summed)
        return replace(track, axes=axes, dim=dim)

    def _weighs(
        self, track: Track, weights: Tensor, values: Tensor, weighing: Weighing
    ) -> None:
        if track.kind not in ("weights", "products") or track.softmax is None:
            return
        if self._values_excluded(track, values, weighing.values_keys):
            return
        self._note_values(track, values, weighing)
        self._is_attention(track, (*track.roles, *_roles(weighing, track.axes)))

    def _note_values(self, track: Track, values: Tensor, weighing: Weighing) -> None:
        if self._see_values is not None and track.softmax is not None:
            weighing = weighing.without(track.axes)
            use = Use(weighing, track.axes, track.keys, track.selected, track.start)
            self._see_values(track.softmax, values, use)

    def _is_attention(self, track: Track, roles: tuple[tuple[Axis, Role], ...]) -> None:
        softmax, keys = track.softmax, track.keys
        if softmax is None or not keys:
            return
        keys = range(keys.start, keys[-1] + 1)
        for axis, role in roles:
            # Values that some use does not share may be shared in another.
            if softmax.roles.get(axis) is not Role.BATCH:
                softmax.roles[axis] = role
        if softmax.keys is not None:
            known = softmax.keys
            keys = range(min(known.start, keys.start), max(known[-1], keys[-1]) + 1)
        if softmax.keys is None or keys != softmax.keys:
            softmax.keys = keys
            self._found.append(softmax)

    def _values_excluded(
        self, track: Track, values: Tensor, values_dim: int | None = None
    ) -> bool:
        """Products with something that is no sequence of values."""
        if _is_table(values):
            # One table for all examples (class embeddings, a codebook, bin centers).
            return True
        # A mixture of experts: the gate is the output of a linear layer, and the values
        # are what several experts made of one input, stacked for the occasion.
        return (
            track.softmax is not None
            and track.softmax.from_linear
            and any(
                other.kind == "stack"
                and (values_dim is None or other.dim == values_dim)
                for other in self._of(values)
            )
        )


def _roles(weighing: Weighing, axes: Axes) -> list[tuple[Axis, Role]]:
    return [
        (Axis(axis.stride, axis.whole, axis.whole), role)
        for dim, role in weighing.roles.items()
        for axis in axes[dim]
        if axis.stride  # not of expand
    ]


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (each for each in value if isinstance(each, Tensor))


def _two(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    left = args[0] if args else kwargs.get("input")
    names = ("other", "mat2", "batch2", "vec", "tensor2")
    right = args[1] if len(args) > 1 else None
    for name in names:
        right = kwargs.get(name, right)
    return left, right


def _is_table(tensor: Any) -> bool:
    return isinstance(tensor, torch.nn.Parameter) and tensor.dim() <= 2


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


def _own_shape(weights: Tensor, axes: Axes) -> list[int]:
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
