"""Recognise attention that is written out: a softmax whose result weighs values.

A softmax is followed through what may stand between it and the values (dropout, a
cast, a reshape, a mask). It counts as attention once its own dimension is summed
away in a product with values: ``weights @ values``, ``einsum``, or
``(weights * values).sum(dim)``. A classifier's output softmax is never multiplied by
values; the router of a mixture of experts is told apart in ``_is_mixture``.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._softmax_call import SoftmaxCall

SOFTMAX = frozenset({"softmax", "_softmax"})
_ELEMENTWISE = frozenset(
    "dropout dropout_ alpha_dropout feature_dropout to type type_as float double half "
    "bfloat16 contiguous clone masked_fill masked_fill_ nan_to_num nan_to_num_ div "
    "div_ true_divide __truediv__ __itruediv__ add add_ __add__ __iadd__ cpu cuda "
    "requires_grad_".split()
)
_RESHAPE = frozenset(
    "transpose permute swapaxes swapdims movedim moveaxis t unsqueeze squeeze view "
    "reshape flatten unflatten expand expand_as view_as reshape_as adjoint".split()
)
_SLICE = frozenset({"__getitem__", "narrow"})
# Shape operations whose arguments are sizes.
_SIZED = frozenset("view reshape unflatten expand expand_as view_as reshape_as".split())
_PROPERTIES = frozenset(
    getattr(torch.Tensor, name).__get__ for name in ("T", "mT", "H", "mH")
)
_MATMUL = frozenset("matmul __matmul__ bmm mm mv".split())
_REVERSED_MATMUL = frozenset({"__rmatmul__"})
_MATMUL_ADD = frozenset("baddbmm addbmm addmm".split())
_PRODUCT = frozenset("mul mul_ multiply __mul__ __rmul__ __imul__".split())
_SUM = frozenset({"sum"})
_DROPOUT = frozenset("dropout dropout_ alpha_dropout feature_dropout".split())


@dataclass
class Softmax:
    """A softmax that may turn out to be attention."""

    weights: Tensor
    dim: int
    scores: Tensor | None
    from_linear: bool  # over the output features of a linear layer
    source: Any
    place: int  # among the fused calls and softmaxes of the forward pass
    dropped: bool = False  # an active dropout lies between the softmax and the values
    # Which entries weigh values; None until it is known to be attention.
    keys: range | None = None
    call: SoftmaxCall | None = None


@dataclass(frozen=True)
class _Track:
    """What is known of a tensor: ``dim`` is where the softmax dimension has gone."""

    kind: str  # "weights", "products" (weights times values), "linear" or "stack"
    dim: int
    softmax: Softmax | None = None
    keys: range = range(0)  # which entries of the softmax dimension are left


class WrittenOutAttention:
    """Follows softmax results through the operations of one thread."""

    def __init__(self) -> None:
        self._tracks: dict[int, tuple[weakref.ref[Tensor], _Track]] = {}
        self._found: list[Softmax] = []

    def clear(self) -> None:
        self._tracks.clear()

    def started(self, result: Tensor, softmax: Softmax) -> None:
        """Follow the result of a softmax."""
        keys = range(result.shape[softmax.dim])
        self._follow(result, _Track("weights", softmax.dim, softmax, keys))

    def is_linear_feature(self, scores: Tensor, dim: int) -> bool:
        track = self._track(scores)
        return (
            track is not None
            and track.kind == "linear"
            and track.dim == dim % scores.dim()
            and scores.shape[dim] > 1
        )

    def see(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> list[Softmax]:
        """Take note of one operation that has just run.

        Returns the softmaxes that it shows to be attention, or of which it shows that
        more entries weigh values than were known.
        """
        self._see(getattr(func, "__name__", ""), func, args, kwargs, result)
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
        if name == "linear":
            if isinstance(result, Tensor) and result.dim() and result.shape[-1] > 1:
                self._follow(result, _Track("linear", result.dim() - 1))
            return
        if name == "stack":
            if isinstance(result, Tensor):
                dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
                self._follow(result, _Track("stack", dim % result.dim()))
            return
        if not self._tracks:
            return
        if name == "einsum":
            self._see_einsum(args)
        elif name in _MATMUL:
            self._see_matmul(*_two(args, kwargs))
        elif name in _REVERSED_MATMUL:
            self._see_matmul(*reversed(_two(args, kwargs)))
        elif name in _MATMUL_ADD:
            self._see_matmul(*_two(args[1:], kwargs))
        elif name in _PRODUCT:
            self._see_product(*_two(args, kwargs), result)
        elif name in _SUM:
            self._see_sum(args, kwargs)
        elif name in _ELEMENTWISE:
            self._see_elementwise(name, args, kwargs, result)
        elif name in _SLICE:
            self._see_slice(func, args, kwargs, result)
        elif name in _RESHAPE or (name == "__get__" and func in _PROPERTIES):
            self._see_reshape(func, args, kwargs, result)

    # -- bookkeeping ------------------------------------------------------------------

    def _track(self, tensor: Any) -> _Track | None:
        entry = self._tracks.get(id(tensor))
        return None if entry is None else entry[1]

    def _follow(self, tensor: Any, track: _Track) -> None:
        if not isinstance(tensor, Tensor):
            return
        key = id(tensor)
        tracks = self._tracks

        def forget(_: Any) -> None:
            tracks.pop(key, None)

        tracks[key] = (weakref.ref(tensor, forget), track)

    # -- operations that keep the weights weights -------------------------------------

    def _see_elementwise(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        tensor = args[0] if args else kwargs.get("input")
        track = self._track(tensor)
        if track is None or tensor is None or not isinstance(result, Tensor):
            return
        if name in _DROPOUT and track.softmax is not None:
            p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            training = kwargs.get("training", args[2] if len(args) > 2 else True)
            if training and p > 0:
                track.softmax.dropped = True
        if result.dim() < tensor.dim():
            return
        offset = result.dim() - tensor.dim()
        if result.shape[track.dim + offset] == tensor.shape[track.dim]:
            self._follow(result, replace(track, dim=track.dim + offset))

    def _see_reshape(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        tensor = args[0] if args else None
        track = self._track(tensor)
        if track is None or not isinstance(result, Tensor):
            return
        dim = _where_dim_goes(func, args, kwargs, track.dim)
        if dim is not None:
            self._follow(result, replace(track, dim=dim))

    def _see_slice(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        tensor = args[0] if args else None
        track = self._track(tensor)
        if track is None or not isinstance(tensor, Tensor):
            return
        if func.__name__ == "__getitem__" and not _basic(args[1]):
            return
        if tensor.shape[track.dim] == 1:
            self._see_reshape(func, args, kwargs, result)
            return
        # The same slice of a tensor in which only this dimension has a stride (of 2, so
        # that a new axis, which has 0 or 1, is not taken for it).
        size = tensor.shape[track.dim]
        shape = [1] * tensor.dim()
        shape[track.dim] = size
        probe = torch.empty(2 * size, device="cpu")[::2].view(shape)
        left = func(probe.expand(tensor.shape), *args[1:], **kwargs)
        for dim in range(left.dim()):
            if left.stride(dim) == 2:
                first = left.storage_offset() // 2
                keys = track.keys[first : first + left.shape[dim]]
                self._follow(result, replace(track, dim=dim, keys=keys))

    # -- products with values ---------------------------------------------------------

    def _see_matmul(self, left: Any, right: Any) -> None:
        if not (isinstance(left, Tensor) and isinstance(right, Tensor)):
            return
        track = self._track(left)
        if track is not None and track.dim == left.dim() - 1 and right.dim() > 1:
            self._weighs(track, left, right, max(right.dim() - 2, 0))
        track = self._track(right)
        if track is not None and left.dim() > 1:
            contracted = max(right.dim() - 2, 0)
            if track.dim == contracted:
                self._weighs(track, right, left, left.dim() - 1)

    def _see_einsum(self, args: tuple[Any, ...]) -> None:
        if not args or not isinstance(args[0], str):
            return
        operands = args[1] if isinstance(args[1], (list, tuple)) else args[1:]
        terms, _, output = args[0].replace(" ", "").partition("->")
        inputs = terms.split(",")
        if len(inputs) != len(operands):
            return
        if "->" not in args[0]:
            output = "".join(c for c in set(terms) - {","} if terms.count(c) == 1)
        for i, operand in enumerate(operands):
            track = self._track(operand)
            if track is None:
                continue
            label = _label(inputs[i], operand.dim(), track.dim)
            if label is None or label in output:
                continue
            for j, other in enumerate(inputs):
                new = set(other) - set(inputs[i]) - {"."}
                if j != i and label in other and new & set(output):
                    dim = _position(other, operands[j].dim(), label)
                    self._weighs(track, operand, operands[j], dim)
                    break

    def _see_product(self, left: Any, right: Any, result: Any) -> None:
        if not isinstance(result, Tensor):
            return
        for tensor, other in ((left, right), (right, left)):
            track = self._track(tensor)
            if track is None or track.kind not in ("weights", "products"):
                continue
            offset = result.dim() - tensor.dim()
            dim = track.dim + offset
            if result.shape[dim] != tensor.shape[track.dim]:
                continue
            kind = track.kind
            if isinstance(other, Tensor) and _has_channels(tensor, other, result, dim):
                if _values_excluded(track, tensor, other, self._track(other)):
                    continue
                kind = "products"
            self._follow(result, replace(track, kind=kind, dim=dim))
            return

    def _see_sum(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensor = args[0] if args else kwargs.get("input")
        track = self._track(tensor)
        if track is None or tensor is None or track.kind != "products":
            return
        dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        if dims is None:
            return
        dims = dims if isinstance(dims, (list, tuple)) else (dims,)
        if track.dim in {d % tensor.dim() for d in dims}:
            self._is_attention(track)

    def _weighs(
        self, track: _Track, weights: Tensor, values: Tensor, values_dim: int
    ) -> None:
        if track.kind not in ("weights", "products") or track.softmax is None:
            return
        if _values_excluded(track, weights, values, self._track(values), values_dim):
            return
        self._is_attention(track)

    def _is_attention(self, track: _Track) -> None:
        softmax, keys = track.softmax, track.keys
        if softmax is None:
            return
        if softmax.keys is not None:
            known = softmax.keys
            keys = range(min(known.start, keys.start), max(known.stop, keys.stop))
        if keys != softmax.keys:
            softmax.keys = keys
            self._found.append(softmax)


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


def _where_dim_goes(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dim: int
) -> int | None:
    """Position of a dimension after a shape operation; None: it is split or merged.

    The operation is done once more on a tensor without data, whose strides tell its
    dimensions apart.
    """
    tensor = args[0]
    shape = list(tensor.shape)
    if getattr(func, "__name__", "") not in _SIZED:
        shape[dim] = max(2, shape[dim])  # tells one key from other dimensions of 1
    probe = torch.empty(shape, device="meta")
    rest = [a.to("meta") if isinstance(a, Tensor) else a for a in args[1:]]
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


def _label(term: str, ndim: int, dim: int) -> str | None:
    """The einsum label of a dimension; None inside an ellipsis."""
    before, dots, after = term.partition("...")
    if not dots or dim < len(before):
        return term[dim] if dim < len(before) else None
    from_end = ndim - dim
    return after[-from_end] if from_end <= len(after) else None


def _position(term: str, ndim: int, label: str) -> int:
    before, _, after = term.partition("...")
    return (
        before.index(label)
        if label in before
        else ndim - len(after) + after.index(label)
    )


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


def _values_excluded(
    track: _Track,
    weights: Tensor,
    values: Tensor,
    values_track: _Track | None,
    values_dim: int | None = None,
) -> bool:
    """Products with something that is no sequence of values."""
    softmax = track.softmax
    if isinstance(values, torch.nn.Parameter) and values.dim() <= 2:
        # One table for all examples (class embeddings, a codebook, bin centres).
        return True
    # A mixture of experts: the gate is the output of a linear layer, and the values
    # are what several experts made of one input, stacked for the occasion.
    return (
        softmax is not None
        and softmax.from_linear
        and values_track is not None
        and values_track.kind == "stack"
        and (values_dim is None or values_track.dim == values_dim)
    )
