"""What an operation that weighs values says of the weights' dimensions.

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

from captum_attngrad.capture._axes import Axes, Axis

_MIXTURES = 4


class Role(Enum):
    """What a dimension of attention weights is."""

    BATCH = "batch"  # weights and values share it
    BROADCAST = "broadcast"  # a batch dimension of matmul that the values do not have
    OWN = "own"  # only weights and output have it
    SELECTED = "selected"  # one entry was taken before values were weighed
    KEYS = "keys"


class Weighing(NamedTuple):
    """One product of weights and values."""

    roles: dict[int, Role]  # of the weights' dimensions but that of the keys
    shared: dict[int, int]  # where the values have the dimensions that both have
    values_keys: int


def of_matmul(weights: Tensor, values: Tensor, reverse: bool) -> Weighing:
    """``weights @ values``; reverse: ``values @ weights``."""
    roles: dict[int, Role] = {}
    shared: dict[int, int] = {}
    if weights.dim() > 1:
        roles[weights.dim() - (1 if reverse else 2)] = Role.OWN
    for dim in range(weights.dim() - 2):
        other = dim - (weights.dim() - 2) + (values.dim() - 2)
        if other >= 0 and values.shape[other] == weights.shape[dim]:
            roles[dim], shared[dim] = Role.BATCH, other
        else:
            roles[dim] = Role.BROADCAST
    keys = values.dim() - 1 if reverse else max(values.dim() - 2, 0)
    return Weighing(roles, shared, keys)


def of_einsum(
    equation: str, operands: list[Any], which: int, keys: int
) -> tuple[int, Weighing] | None:
    """Which operand is weighed, and how; None: the keys are not summed away."""
    terms, arrow, output = equation.replace(" ", "").partition("->")
    inputs = terms.split(",")
    if len(inputs) != len(operands):
        return None
    if not arrow:
        output = "".join(c for c in set(terms) - {","} if terms.count(c) == 1)
    labels = [
        _labels(term, op.dim()) for term, op in zip(inputs, operands, strict=True)
    ]
    own = labels[which]
    label = own[keys]
    if not label.isalpha() or label in output:
        return None
    for j, other in enumerate(labels):
        new = {c for c in other if c not in own and c.isalpha()}
        if j == which or label not in other or not new & set(output):
            continue
        roles: dict[int, Role] = {}
        shared: dict[int, int] = {}
        for dim, name in enumerate(own):
            if dim == keys:
                continue
            at = other.index(name) if name in other else None
            if at is not None and operands[j].shape[at] == operands[which].shape[dim]:
                roles[dim], shared[dim] = Role.BATCH, at
            else:
                roles[dim] = Role.OWN if name.isalpha() else Role.BROADCAST
        return j, Weighing(roles, shared, other.index(label))
    return None


def _labels(term: str, dims: int) -> list[str]:
    """One label for each dimension; those of an ellipsis are numbered from its end."""
    before, dots, after = term.partition("...")
    count = dims - len(before) - len(after)
    inside = [str(i) for i in range(count, 0, -1)] if dots else []
    return [*before, *inside, *after]


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
            roles[dim] = Role.OWN
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
    """The weights' dimensions, cut where roles change. Sizes of 1 are left out.

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
    """A dimension of which every entry was taken by itself is batch-like; one of which
    a single entry was taken holds the queries."""
    settled = []
    for tile in tiles:
        if tile.role is Role.SELECTED:
            once = len(selected.get(tile.stride, ())) < 2
            alone = not any(other.role is Role.OWN for other in tiles)
            role = Role.OWN if once and alone else Role.BATCH
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


def shared_axes(weighing: Weighing, axes: Axes) -> list[tuple[Axis, ...]]:
    return [axes[dim] for dim in weighing.shared]
