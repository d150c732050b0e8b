"""The tensors that hold softmax weights, and what is known of each."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import Parameter

from captum_attngrad.capture._layout.axes import Axis
from captum_attngrad.capture._layout.weighing import Role, Use, Weighing
from captum_attngrad.capture._softmax.tracks import Softmax, Track

# What was weighed: (softmax, values, how).
SeeValues = Callable[[Softmax, Tensor, Use], None]


class Call(NamedTuple):
    """An operation that has just run."""

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def argument(self, position: int, *names: str, default: Any = None) -> Any:
        """An argument, by its position or one of its names."""
        if len(self.args) > position:
            default = self.args[position]
        for name in names:
            default = self.kwargs.get(name, default)
        return default

    @property
    def input(self) -> Any:
        return self.args[0] if self.args else self.kwargs.get("input")

    @property
    def operands(self) -> tuple[Any, Any]:
        others = "other", "mat2", "batch2", "vec", "tensor2"
        return self.input, self.argument(1, *others)

    def tensors(self) -> Iterator[Tensor]:
        return tensors_in((*self.args, *self.kwargs.values()))


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (each for each in value if isinstance(each, Tensor))


def is_table(tensor: Any) -> bool:
    """Whether all examples share it: class embeddings, a codebook, bin centers."""
    return isinstance(tensor, Parameter) and tensor.dim() <= 2


class Followed:
    """
    The tracks of all living tensors of one thread.

    Args:
        see_values (Callable, optional): takes the values that softmaxes weigh.

    Attributes:
        found (list of Softmax): those that have turned out to be attention, or to weigh
            with more entries than were known.
        lost (list of Softmax): those that weighed values after an unknown operation.
    """

    def __init__(self, see_values: SeeValues | None = None) -> None:
        self._tracks: dict[int, tuple[weakref.ref[Tensor], list[Track]]] = {}
        self._see_values = see_values
        self.found: list[Softmax] = []
        self.lost: list[Softmax] = []

    def __bool__(self) -> bool:
        return bool(self._tracks)

    def clear(self) -> None:
        self._tracks.clear()

    def of(self, tensor: Any) -> list[Track]:
        """What is known of a tensor (a copy)."""
        entry = self._tracks.get(id(tensor))
        return [] if entry is None else list(entry[1])

    def follow(self, tensor: Any, track: Track) -> None:
        if not isinstance(tensor, Tensor):
            return
        key, tracks = id(tensor), self._tracks
        known = tracks.get(key)
        if known is not None:
            # One tensor may hold several softmaxes, but one of them only in one way.
            others = [t for t in known[1] if t.softmax is not track.softmax]
            tracks[key] = (known[0], [*others, track])
        else:
            gone = weakref.ref(tensor, lambda _: tracks.pop(key, None))
            tracks[key] = (gone, [track])

    def is_linear_feature(self, scores: Tensor, dim: int) -> bool:
        """Whether a dimension holds the output features of a linear layer."""
        return scores.shape[dim] > 1 and any(
            track.kind == "linear" and track.dim == dim for track in self.of(scores)
        )

    def lose(self, name: str, track: Track, result: Any) -> None:
        """The operation ``name`` cannot be followed."""
        if track.softmax is None:
            return
        lost = replace(track, kind="lost", unknown=track.unknown or name)
        for tensor in tensors_in((result,)):
            if tensor.is_floating_point():
                self.follow(tensor, lost)

    def weighs_unseen(self, track: Track, name: str = "") -> None:
        """A softmax weighs values in a way that cannot be followed."""
        softmax = track.softmax
        if softmax is not None and softmax.keys is None and not softmax.from_linear:
            if softmax.lost is None:
                self.lost.append(softmax)
            softmax.lost = softmax.lost or track.unknown or name

    def weighs(self, track: Track, values: Tensor, weighing: Weighing) -> None:
        """A product of weights and values is summed over the keys."""
        if track.kind not in ("weights", "products") or track.softmax is None:
            return
        if not self.excluded(track, values, weighing.values_keys):
            self.note_values(track, values, weighing)
            self.is_attention(track, (*track.roles, *roles_of(track, weighing)))

    def note_values(self, track: Track, values: Tensor, weighing: Weighing) -> None:
        if self._see_values is not None and track.softmax is not None:
            weighing = weighing.without(track.axes)
            use = Use(weighing, track.axes, track.keys, track.selected, track.start)
            self._see_values(track.softmax, values, use)

    def is_attention(self, track: Track, roles: Iterable[tuple[Axis, Role]]) -> None:
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
        if keys != softmax.keys:
            softmax.keys = keys
            self.found.append(softmax)

    def excluded(
        self, track: Track, values: Tensor, values_dim: int | None = None
    ) -> bool:
        """Whether what is weighed is not a sequence of values."""
        if is_table(values):
            return True
        # A mixture of experts: the gate is the output of a linear layer, and the values
        # are what several experts made of one input, stacked for the occasion.
        return (
            track.softmax is not None
            and track.softmax.from_linear
            and any(
                other.kind == "stack" and values_dim in (None, other.dim)
                for other in self.of(values)
            )
        )


def roles_of(track: Track, weighing: Weighing) -> list[tuple[Axis, Role]]:
    """What a product says of the axes of the softmax."""
    return [
        (Axis(axis.stride, axis.whole, axis.whole), role)
        for dim, role in weighing.roles.items()
        for axis in track.axes[dim]
        if axis.stride  # not of expand
    ]
