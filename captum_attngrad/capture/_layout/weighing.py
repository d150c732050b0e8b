"""What an operation that weighs values says about the weights' dimensions.

Of ``weights`` and ``values`` in one product, the dimension that is summed away holds
the keys. Dimensions that both have are batch-like: examples, heads, windows, groups.
Those that only the weights have are queries, as the output has them too. ``matmul``
names its queries; its batch dimensions that the values do not have may be examples or
heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_attngrad.capture._layout.axes import Axes, Axis

_MIXTURES = 8


class Role(Enum):
    """What a dimension of attention weights holds."""

    BATCH = "batch"  # weights and values share it
    BROADCAST = "broadcast"  # a batch dimension of matmul that the values do not have
    UNSHARED = "unshared"  # only weights and output have it
    SELECTED = "selected"  # one entry was taken before values were weighed
    KEYS = "keys"


class Weighing(NamedTuple):
    """One product of weights and values."""

    roles: dict[int, Role]  # of the weights' dimensions but that of the keys
    shared: dict[int, int]  # where the values have the dimensions that both have
    values_keys: int

    def without(self, axes: Axes) -> Weighing:
        """The same without what the weights got from ``expand`` or other products."""
        own = {d for d, dim in enumerate(axes) if not dim or any(a.stride for a in dim)}
        roles = {dim: role for dim, role in self.roles.items() if dim in own}
        shared = {dim: at for dim, at in self.shared.items() if dim in own}
        return Weighing(roles, shared, self.values_keys)


class Use(NamedTuple):
    """One use of weights: with which values, and which of the weights.

    Args:
        weighing (Weighing): the product.
        axes (Axes): where the dimensions of the weights have gone.
        keys (range): which keys are weighed.
        selected (dict): by stride of an axis that is gone, which entries were taken.
        start (dict): by stride of an axis, the first entry that is left.
    """

    weighing: Weighing
    axes: Axes
    keys: range
    selected: dict[int, frozenset[int]]
    start: dict[int, int]

    @property
    def shared(self) -> list[tuple[Axis, ...]]:
        """The axes of the leading dimensions of the values' fingerprint."""
        return [self.axes[dim] for dim in self.weighing.shared]

    def role_at(self, stride: int) -> Role | None:
        """What the product says about entries of the weights that lie so far apart."""
        for dim, role in self.weighing.roles.items():
            for axis in self.axes[dim]:
                if axis.stride <= stride < axis.stride * max(axis.whole, 1):
                    return role
        return None


def of_matmul(weights: Tensor, values: Tensor, reverse: bool) -> Weighing:
    """``weights @ values``, or if ``reverse`` is set ``values @ weights``."""
    roles: dict[int, Role] = {}
    shared: dict[int, int] = {}
    if weights.dim() > 1:
        roles[weights.dim() - (1 if reverse else 2)] = Role.UNSHARED
    for dim in range(weights.dim() - 2):
        other = dim - (weights.dim() - 2) + (values.dim() - 2)
        if other >= 0 and values.shape[other] == weights.shape[dim]:
            roles[dim], shared[dim] = Role.BATCH, other
        else:
            roles[dim] = Role.BROADCAST
    keys = values.dim() - 1 if reverse else max(values.dim() - 2, 0)
    return Weighing(roles, shared, keys)


class Einsum(NamedTuple):
    """The dimensions of an einsum's operands and output: names where they have one,
    and numbers from the end where they stand for an ellipsis."""

    operands: list[Any]
    labels: list[list[str | int]]
    output: list[str | int]

    def weighing(self, which: int, keys: int) -> tuple[int, Weighing] | None:
        """Which operand has the values that operand ``which`` weighs; None if it weighs
        none."""
        own, weights = self.labels[which], self.operands[which]
        label = own[keys]
        if isinstance(label, int) or len(set(own)) < len(own):
            return None
        for j, other in enumerate(self.labels):
            new = {name for name in other if name not in own and isinstance(name, str)}
            if j == which or label not in other or not new:
                continue
            roles: dict[int, Role] = {}
            shared: dict[int, int] = {}
            for dim, name in enumerate(own):
                at = other.index(name) if name in other else None
                if dim == keys or (at is None and name not in self.output):
                    continue
                size = self.operands[j].shape[at] if at is not None else 0
                if at is not None and size == weights.shape[dim]:
                    roles[dim], shared[dim] = Role.BATCH, at
                else:
                    roles[dim] = (
                        Role.UNSHARED if isinstance(name, str) else Role.BROADCAST
                    )
            return j, Weighing(roles, shared, other.index(label))
        return None

    def keeps(self, which: int, keys: int) -> bool:
        """Whether the output still has the dimension of the keys."""
        return self.labels[which][keys] in self.output

    def contracts_others(self, which: int) -> bool:
        """Whether dimensions of an operand are summed away with those of another."""
        others = {n for j, ls in enumerate(self.labels) if j != which for n in ls}
        return any(n in others and n not in self.output for n in self.labels[which])


def einsum_of(args: tuple[Any, ...]) -> Einsum | None:
    """An einsum that is called with an equation, or with lists of numbers."""
    if not args:
        return None
    explicit: list[Any] | None
    if isinstance(args[0], str):
        rest = args[1:]
        nested = len(rest) == 1 and isinstance(rest[0], (list, tuple))
        operands = list(rest[0] if nested else rest)
        inputs, arrow, after = args[0].replace(" ", "").partition("->")
        terms = [_letters(term) for term in inputs.split(",")]
        explicit = _letters(after) if arrow else None
    else:
        pairs = len(args) // 2
        operands = list(args[: 2 * pairs : 2])
        terms = [_numbers(term) for term in args[1 : 2 * pairs : 2]]
        explicit = _numbers(args[-1]) if len(args) % 2 else None
    if len(terms) != len(operands) or not all(isinstance(o, Tensor) for o in operands):
        return None
    dims = [
        operand.dim() - len([name for name in term if name is not ...])
        for term, operand in zip(terms, operands, strict=True)
    ]
    labels = [_expanded(t, n) for t, n in zip(terms, dims, strict=True)]
    inside = max((n for t, n in zip(terms, dims, strict=True) if ... in t), default=0)
    if explicit is None:
        every = [name for term in labels for name in term if isinstance(name, str)]
        once = sorted(name for name in every if every.count(name) == 1)
        return Einsum(operands, labels, [*range(inside, 0, -1), *once])
    return Einsum(operands, labels, _expanded(explicit, inside))


def _letters(term: str) -> list[Any]:
    before, dots, after = term.partition("...")
    return [*before, ..., *after] if dots else list(before)


def _numbers(term: Any) -> list[Any]:
    return [name if name is ... else f"{name:04d}" for name in term]


def _expanded(term: list[Any], inside: int) -> list[str | int]:
    """One label for each dimension; those of an ellipsis are numbered from its end."""
    return [
        label
        for name in term
        for label in (range(inside, 0, -1) if name is ... else (name,))
    ]


def of_product(weights: Tensor, values: Tensor, keys: int) -> Weighing:
    """``weights * values``, to be summed over the keys; dimensions from the end."""
    roles: dict[int, Role] = {}
    shared: dict[int, int] = {}
    offset = values.dim() - weights.dim()
    for dim in range(weights.dim()):
        if dim == keys:
            continue
        other = dim + offset
        if other >= 0 and values.shape[other] == weights.shape[dim]:
            roles[dim], shared[dim] = Role.BATCH, other
        else:
            roles[dim] = Role.UNSHARED
    return Weighing(roles, shared, keys + offset)


@dataclass(frozen=True)
class Tile:
    """A part of the weights' dimensions with one role, as they lie in memory."""

    stride: int
    size: int
    role: Role


def tiles_of(
    shape: tuple[int, ...],
    keys_dim: int,
    roles: dict[Axis, Role],
    selected: dict[int, set[int]],
) -> list[Tile]:
    """The weights' dimensions, cut where roles change, without those of size 1.

    Raises:
        ValueError: the dimensions were merged in a way that cannot be undone.
    """
    tiles: list[Tile] = []
    stride = 1
    for dim in reversed(range(len(shape))):
        size, end = shape[dim], stride * max(shape[dim], 1)
        if dim == keys_dim:
            tiles.append(Tile(stride, size, Role.KEYS))
        elif size != 1:
            inside = [axis for axis in roles if stride <= axis.stride < end]
            edges = {stride, end}
            for axis in inside:
                edges |= {axis.stride, min(end, axis.stride * max(axis.whole, 1))}
            for low, high in zip(
                sorted(edges), sorted(edges)[1:] or [end], strict=False
            ):
                if high % low:
                    raise ValueError(f"strides {low} and {high}")
                role = next(
                    (
                        roles[axis]
                        for axis in inside
                        if axis.stride <= low < axis.stride * max(axis.whole, 1)
                    ),
                    Role.SELECTED,
                )
                tiles.append(Tile(low, high // low, role))
            if size == 0:
                tiles.append(
                    Tile(stride, 0, roles[inside[0]] if inside else Role.BATCH)
                )
        stride = end
    tiles.reverse()
    return _settled(tiles, selected)


def _settled(tiles: list[Tile], selected: dict[int, set[int]]) -> list[Tile]:
    """A dimension whose entries were taken one by one is batch-like; one of which a
    single entry was taken holds the queries."""
    settled = []
    for tile in tiles:
        if tile.role is Role.SELECTED:
            once = len(selected.get(tile.stride, ())) < 2
            alone = not any(other.role is Role.UNSHARED for other in tiles)
            role = Role.UNSHARED if once and alone else Role.BATCH
            tile = Tile(tile.stride, tile.size, role)
        settled.append(tile)
    return settled


def fingerprint(values: Tensor, weighing: Weighing) -> Tensor:
    """Some numbers for each entry of the values: shared dimensions, keys, numbers."""
    kept = [*weighing.shared.values(), weighing.values_keys]
    rest = [dim for dim in range(values.dim()) if dim not in kept]
    entries = values.detach().permute(*kept, *rest)
    return mixed(entries.reshape(*entries.shape[: len(kept)], -1))


def mixed(entries: Tensor) -> Tensor:
    """Several mixtures of the last dimension, of which not all stay the same by chance
    where an entry changes."""
    if entries.dtype in (torch.float16, torch.bfloat16):
        entries = entries.float()
    return entries @ mixtures(entries)


def mixtures(like: Tensor) -> Tensor:
    """Random numbers, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(like.shape[-1], _MIXTURES, generator=generator).to(like)
