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

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture import _operations as ops
from captum_attngrad.capture._axes import (
    Axes,
    Axis,
    axes_of,
    broadcast,
    shaped,
    without_data,
)
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture._weighing import (
    Role,
    Weighing,
    of_einsum,
    of_matmul,
    of_product,
)

_DATA = getattr(torch.Tensor.data, "__get__")  # noqa: B009

# What was weighed: (softmax, values, how, axes of the weights' dimensions).
SeeValues = Callable[["Softmax", Tensor, Weighing, Axes], None]


@dataclass
class Softmax:
    """A softmax that may turn out to be attention."""

    weights: Tensor
    dim: int
    scores: Tensor | None
    from_linear: bool  # over the output features of a linear layer
    source: Any
    place: int  # among the fused calls and softmaxes of the forward pass
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
class _Track:
    """What is known of a tensor.

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
    roles: tuple[tuple[Axis, Role], ...] = ()  # of products
    unknown: str = ""  # the operation at which it was lost


class WrittenOutAttention:
    """Follows softmax results through the operations of one thread."""

    def __init__(self, see_values: SeeValues | None = None) -> None:
        self._tracks: dict[int, tuple[weakref.ref[Tensor], list[_Track]]] = {}
        self._found: list[Softmax] = []
        self._see_values = see_values
        self.lost: list[Softmax] = []

    def clear(self) -> None:
        self._tracks.clear()

    def started(self, result: Tensor, softmax: Softmax) -> None:
        """Follow the result of a softmax."""
        self._follow(result, _whole("weights", result, softmax.dim, softmax))

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
            if isinstance(result, Tensor) and result.dim() and result.shape[-1] > 1:
                self._follow(result, _whole("linear", result, result.dim() - 1))
        elif name == "stack" and isinstance(result, Tensor):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
            self._follow(result, _whole("stack", result, dim % result.dim()))
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
            self._see_einsum(args)
        elif name in ops.MATMUL:
            self._see_matmul(*_two(args, kwargs))
        elif name in ops.REVERSED_MATMUL:
            self._see_matmul(*reversed(_two(args, kwargs)))
        elif name in ops.MATMUL_ADD:
            self._see_matmul(*_two(args[1:], kwargs))
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
        elif name == "topk":
            self._see_topk(args, kwargs, result)
        elif name not in ops.QUESTIONS:
            self._see_unknown(name, args, kwargs, result)

    # -- bookkeeping ------------------------------------------------------------------

    def _of(self, tensor: Any) -> list[_Track]:
        entry = self._tracks.get(id(tensor))
        return [] if entry is None else entry[1]

    def _follow(self, tensor: Any, track: _Track) -> None:
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

    def _lose(self, name: str, track: _Track, result: Any) -> None:
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
            for track in self._of(tensor):
                self._lose(name, track, result)

    def _weighs_unseen(self, track: _Track) -> None:
        softmax = track.softmax
        if softmax is not None and softmax.keys is None and not softmax.from_linear:
            if softmax.lost is None:
                self.lost.append(softmax)
            softmax.lost = softmax.lost or track.unknown or "an unknown operation"

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
            if track.kind == "lost" or (name == "__getitem__" and not _basic(args[1])):
                self._lose(name, track, result)
                continue
            results = [result] if isinstance(result, Tensor) else list(result)
            try:
                moved = shaped(func, args, kwargs, track.axes, slices)
                single = (
                    _where_one_key_goes(func, args, kwargs, track)
                    if track.key_axis.whole == 1
                    else None
                )
            except (RuntimeError, TypeError, ValueError, NotImplementedError):
                self._lose(name, track, result)
                continue
            for left, found in zip(results, moved, strict=True):
                following = None
                if found is not None:
                    following = _moved(track, found.axes, found.first, single)
                if following is None and found is not None and slices:
                    following = _one_key_left(func, args, kwargs, track, found.axes)
                if following is None:
                    self._lose(name, track, left)
                    continue
                if slices and track.softmax is not None:
                    gone = {a.stride for dim in track.axes for a in dim}
                    gone -= {a.stride for dim in following.axes for a in dim}
                    for stride in gone:
                        chosen = track.softmax.selected.setdefault(stride, set())
                        chosen.add(found.first[stride] if found else 0)
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
                self._follow(best, _whole("linear", best, dim % best.dim()))

    # -- products with values ---------------------------------------------------------

    def _see_matmul(self, left: Any, right: Any) -> None:
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return
        for track in list(self._of(left)):
            if track.kind == "lost":
                self._weighs_unseen(track)
            elif track.dim == left.dim() - 1 and right.dim() > 1:
                self._weighs(track, left, right, of_matmul(left, right, False))
        for track in list(self._of(right)):
            if track.kind == "lost":
                self._weighs_unseen(track)
            elif left.dim() > 1 and track.dim == max(right.dim() - 2, 0):
                self._weighs(track, right, left, of_matmul(right, left, True))

    def _see_einsum(self, args: tuple[Any, ...]) -> None:
        if not args or not isinstance(args[0], str):
            return
        operands = list(args[1] if isinstance(args[1], (list, tuple)) else args[1:])
        for i, operand in enumerate(operands):
            for track in list(self._of(operand)):
                if track.kind == "lost":
                    self._weighs_unseen(track)
                elif track.dim is not None:
                    found = of_einsum(args[0], operands, i, track.dim)
                    if found is not None:
                        self._weighs(track, operand, operands[found[0]], found[1])

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
        self, track: _Track, tensor: Tensor, other: Any, result: Tensor
    ) -> None:
        offset = result.dim() - tensor.dim()
        dim = None if track.dim is None else track.dim + offset
        if dim is not None and result.shape[dim] != tensor.shape[dim - offset]:
            return
        axes = broadcast(track.axes, result.shape)
        following = replace(track, dim=dim, axes=axes)
        if (
            dim is not None
            and isinstance(other, Tensor)
            and _has_channels(tensor, other, result, dim)
        ):
            if self._values_excluded(track, other):
                return
            assert track.dim is not None
            weighing = of_product(tensor, other, track.dim)
            roles = _roles(weighing, track.axes)
            following = replace(
                following, kind="products", roles=(*track.roles, *roles)
            )
            self._note_values(track, other, weighing)
        self._follow(result, following)

    def _see_sum(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        tensor = args[0] if args else kwargs.get("input")
        if not isinstance(tensor, Tensor):
            return
        dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        if dims is None or not isinstance(dims, (int, list, tuple)):
            return
        dims = dims if isinstance(dims, (list, tuple)) else (dims,)
        summed = {d % tensor.dim() for d in dims}
        for track in list(self._of(tensor)):
            if track.kind == "products" and track.dim in summed:
                if name == "sum":
                    self._is_attention(track, track.roles)
            elif track.kind != "lost" and track.dim not in summed:
                self._lose(name, track, result)

    def _weighs(
        self, track: _Track, weights: Tensor, values: Tensor, weighing: Weighing
    ) -> None:
        if track.kind not in ("weights", "products") or track.softmax is None:
            return
        if self._values_excluded(track, values, weighing.values_keys):
            return
        self._note_values(track, values, weighing)
        self._is_attention(track, (*track.roles, *_roles(weighing, track.axes)))

    def _note_values(self, track: _Track, values: Tensor, weighing: Weighing) -> None:
        if self._see_values is not None and track.softmax is not None:
            self._see_values(track.softmax, values, weighing, track.axes)

    def _is_attention(
        self, track: _Track, roles: tuple[tuple[Axis, Role], ...]
    ) -> None:
        softmax, keys = track.softmax, track.keys
        if softmax is None:
            return
        for axis, role in roles:
            # Values that some use does not share may be shared in another.
            if softmax.roles.get(axis) is not Role.BATCH:
                softmax.roles[axis] = role
        if softmax.keys is not None:
            known = softmax.keys
            keys = range(min(known.start, keys.start), max(known.stop, keys.stop))
        if softmax.keys is None or keys != softmax.keys:
            softmax.keys = keys
            self._found.append(softmax)

    def _values_excluded(
        self, track: _Track, values: Tensor, values_dim: int | None = None
    ) -> bool:
        """Products with something that is no sequence of values."""
        if isinstance(values, torch.nn.Parameter) and values.dim() <= 2:
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


def _whole(
    kind: str, tensor: Tensor, dim: int, softmax: Softmax | None = None
) -> _Track:
    axes = axes_of(tensor.shape)
    size = tensor.shape[dim]
    axis = axes[dim][0] if axes[dim] else Axis(1, 1, 1)
    return _Track(kind, axes, dim, softmax, range(size), axis)


def _moved(
    track: _Track, axes: Axes, first: dict[int, int], single: int | None
) -> _Track | None:
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
        # One key is left, in no dimension that could be told from others.
        return None
    dims = {i for i, _ in inside}
    dim = dims.pop() if len(dims) == 1 else None
    if dim is not None and len(axes[dim]) > len(inside):
        dim = None  # merged with other dimensions
    keys = track.keys
    if len(inside) == 1:
        start = first.get(inside[0][1].stride, 0)
        keys = keys[start : start + inside[0][1].size]
    return replace(track, axes=axes, dim=dim, keys=keys)


def _one_key_left(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], track: _Track, axes: Axes
) -> _Track | None:
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


def _basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is ... or isinstance(p, (int, slice)) for p in parts)


def _where_one_key_goes(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], track: _Track
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
    if not isinstance(moved, Tensor):
        return None
    size, stride = shape[dim], probe.stride(dim)
    found = [
        i
        for i in range(moved.dim())
        if moved.shape[i] == size and (moved.stride(i) == stride or size == 1)
    ]
    if len(found) > 1:  # a reshape with one key: the end stays the end
        last = dim == tensor.dim() - 1
        return found[-1] if last else found[0]
    return found[0] if found else None


def _has_channels(weights: Tensor, other: Tensor, result: Tensor, dim: int) -> bool:
    """Whether ``other`` brings channels of its own that the weights are spread over
    (as values do, and a mask of the weights' own shape does not)."""
    if other.dtype == torch.bool:
        return False
    for i in range(result.dim()):
        j = i - (result.dim() - weights.dim())
        size = weights.shape[j] if j >= 0 else 1
        if i != dim and size == 1 and result.shape[i] > 1:
            k = dim - (result.dim() - other.dim())
            return k >= 0 and other.shape[k] == result.shape[dim]
    return False
