"""Where examples, heads, queries and keys are in the tensors of an attention call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from captum_attngrad.capture._layout.weighing import Role, Tile


@dataclass(frozen=True)
class Layout:
    """What the tiles of attention weights hold.

    Args:
        lead (tuple of int): the tiles that hold examples and heads.
        examples (int, optional): which of them holds the examples, folded with heads
            where it is larger. None: there is one example.
        inner (bool): in a fold, examples vary fastest (heads first).
        queries (tuple of int): the tiles that hold queries; none where there is one.
        keys (int): the tile of the keys.
    """

    lead: tuple[int, ...]
    examples: int | None
    inner: bool
    queries: tuple[int, ...]
    keys: int

    def without_examples(self) -> Layout:
        """The layout of a single example, which has no dimension of its own."""

        def left(tiles: tuple[int, ...]) -> tuple[int, ...]:
            gone = self.examples
            assert gone is not None
            return tuple(i - (i > gone) for i in tiles if i != gone)

        (keys,) = left((self.keys,))
        return Layout(left(self.lead), None, False, left(self.queries), keys)

    def arranged(self, weights: Tensor, tiles: Sequence[Tile], examples: int) -> Tensor:
        """Weights in the model's own layout, as ``(batch, heads, queries, keys)``."""
        sizes = [tile.size for tile in tiles]
        queries = math.prod(sizes[i] for i in self.queries)
        weights = weights.reshape(sizes).permute(*self.lead, *self.queries, self.keys)
        lead = [sizes[i] for i in self.lead]
        weights = weights.reshape(*lead, queries, sizes[self.keys])
        return self.lead_arranged(weights, examples)

    def lead_arranged(self, tensor: Tensor, examples: int) -> Tensor:
        """``(*lead, length, channels)`` as ``(batch, heads, length, channels)``."""
        sizes = list(tensor.shape[:-2])
        last = tensor.shape[-2:]
        if self.examples is None:
            return tensor.reshape(1, math.prod(sizes), *last)
        at = self.lead.index(self.examples)
        fold = sizes[at] // max(examples, 1)
        if fold > 1:
            pair = (fold, examples) if self.inner else (examples, fold)
            tensor = tensor.unflatten(at, pair)
            at += int(self.inner)
        if at:
            tensor = tensor.movedim(at, 0)
        return tensor.reshape(examples, math.prod(tensor.shape[1:-2]), *last)

    def lead_restored(self, tensor: Tensor, sizes: Sequence[int]) -> Tensor:
        """The inverse of :meth:`lead_arranged`, for leading dimensions of ``sizes``."""
        last = tensor.shape[-2:]
        if self.examples is None:
            return tensor.reshape(*sizes, *last)
        at, examples = self.lead.index(self.examples), tensor.shape[0]
        fold = sizes[at] // max(examples, 1)
        others = [n for i, n in enumerate(sizes) if i != at]
        before = others[:at]
        if fold > 1:
            before = [*before, fold]
        tensor = tensor.reshape(examples, *before, *others[at:], *last)
        where = at if fold == 1 or not self.inner else at + 1
        return tensor.movedim(0, where).reshape(*sizes, *last)

    def restored(self, weights: Tensor, tiles: Sequence[Tile]) -> Tensor:
        """The inverse of :meth:`arranged`, one dimension for each tile."""
        sizes = [tile.size for tile in tiles]
        lead = [sizes[i] for i in self.lead]
        weights = self.lead_restored(weights, lead)
        queries = [sizes[i] for i in self.queries]
        weights = weights.reshape(*lead, *queries, sizes[self.keys])
        order = [*self.lead, *self.queries, self.keys]
        return weights.permute([order.index(i) for i in range(len(tiles))])


@dataclass(frozen=True)
class ExampleDimension:
    """The dimension of one of the model's tensors that holds the examples.

    Args:
        dim (int): the dimension.
        inner (bool): examples vary fastest in it.
    """

    dim: int
    inner: bool

    def spread(self, numbers: Tensor, like: Tensor) -> Tensor:
        """One number for each example, so that it can be multiplied with ``like``."""
        numbers = numbers.to(like.device, like.dtype)
        if numbers.numel() == 1:
            return numbers
        size = like.shape[self.dim]
        if size % numbers.numel():
            raise ValueError(
                f"An attention call works on a batch of {size}, while forward_func "
                f"was called with {numbers.numel()} examples (dimension 0; several "
                "steps go through as one batch). forward_func must keep the examples "
                "apart."
            )
        times = size // numbers.numel()
        numbers = (
            numbers.repeat(times) if self.inner else (numbers.repeat_interleave(times))
        )
        shape = [1] * like.dim()
        shape[self.dim] = size
        return numbers.view(shape)


def only_layout(tiles: Sequence[Tile], examples: int) -> Layout | None:
    """The layout, where sizes leave no choice: there is one example, or only one
    dimension can hold so many."""
    lead = [i for i, t in enumerate(tiles) if t.role in (Role.BATCH, Role.BROADCAST)]
    own = [i for i, t in enumerate(tiles) if t.role is Role.UNSHARED]
    if len(own) > 1:
        return None
    keys = next(i for i, t in enumerate(tiles) if t.role is Role.KEYS)
    if examples == 1:
        return Layout(tuple(lead), None, False, tuple(own), keys)
    fitting = [i for i in lead if tiles[i].size % max(examples, 1) == 0]
    if examples == 0:
        fitting = [i for i in lead if tiles[i].size == 0][:1]
    if len(fitting) != 1 or tiles[fitting[0]].size != examples:
        return None
    return Layout(tuple(lead), fitting[0], False, tuple(own), keys)
