"""What the values of several uses of the same attention weights have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._layout.axes import Axis
from captum_attngrad.capture._layout.weighing import Role, Tile, Use


@dataclass
class Merged:
    """Uses of the weights that share the same dimensions with their values, and select
    entries of the same dimensions, as in a loop over heads.

    Args:
        changed (Tensor): booleans ``(runs, *tiles but the keys, keys)``, with size 1
            where values have no such dimension.
    """

    changed: Tensor
    numbers: Tensor = field(default_factory=lambda: torch.empty(0))
    filled: Tensor = field(default_factory=lambda: torch.empty(0))
    shared: frozenset[int] = frozenset()  # strides of tiles
    selected: frozenset[int] = frozenset()
    uses: list[Use] = field(default_factory=list)


def merge(
    merged: dict[Any, Merged],
    use: Use,
    changed: Tensor,
    numbers: Tensor,
    tiles: Sequence[Tile],
) -> None:
    """Add a use to those it belongs to, unless it is unknown which weights it has.

    Args:
        merged (dict): to be added to.
        use (Use): how the weights are used.
        changed (Tensor): booleans ``(runs, *shared, keys)``.
        numbers (Tensor): fingerprints ``(*shared, keys, numbers)``.
        tiles (sequence of Tile): of the weights.
    """
    rest = [tile for tile in tiles if tile.role is not Role.KEYS]
    (keys,) = (tile.size for tile in tiles if tile.role is Role.KEYS)
    if changed.shape[-1] != len(use.keys):
        return
    order, taken, sizes = [], {}, []
    for axis in (axis for dim in use.shared for axis in dim):
        inside = _inside(axis, rest)
        whole = axis.size == axis.whole
        if math.prod(rest[i].size for i in inside) != axis.whole or (
            not whole and (len(inside) != 1 or axis.stride != rest[inside[0]].stride)
        ):
            return
        order += inside
        for i in inside:
            start = 0 if whole else use.start.get(axis.stride, 0)
            size = rest[i].size if whole else axis.size
            taken[i] = torch.arange(start, start + size)
            sizes.append(size)
    shared = frozenset(rest[i].stride for i in order)
    selected = set()
    for i, tile in enumerate(rest):
        chosen = use.selected.get(tile.stride)
        if chosen is not None and i not in taken and max(chosen) < tile.size:
            taken[i] = torch.tensor(sorted(chosen))
            selected.add(tile.stride)
    key = shared, frozenset(selected)
    full = [tile.size if i in taken else 1 for i, tile in enumerate(rest)]
    if key not in merged:
        merged[key] = Merged(
            torch.zeros(len(changed), *full, keys, dtype=torch.bool),
            numbers.new_zeros(*full, keys, numbers.shape[-1]),
            torch.zeros(*full, keys, dtype=torch.bool),
            *key,
        )
    into = merged[key]
    into.uses.append(use)
    # From the order of the values' dimensions to that of the tiles.
    permutation = sorted(range(len(order)), key=order.__getitem__)
    shape = [len(taken[i]) if i in order else 1 for i in range(len(rest))]
    changed = changed.reshape(len(changed), *sizes, -1)
    changed = changed.permute(0, *(1 + i for i in permutation), -1)
    changed = changed.reshape(len(changed), *shape, -1)
    numbers = numbers.reshape(*sizes, *numbers.shape[-2:])
    numbers = numbers.permute(*permutation, -2, -1)
    numbers = numbers.reshape(*shape, *numbers.shape[-2:])
    where = [taken.get(i, torch.zeros(1, dtype=torch.long)) for i in range(len(rest))]
    where.append(torch.tensor(list(use.keys)))
    index = tuple(
        each.view([-1 if i == j else 1 for j in range(len(where))])
        for i, each in enumerate(where)
    )
    for run, of_run in zip(into.changed, changed, strict=True):
        run[index] |= of_run
    into.numbers[index] = numbers
    into.filled[index] = True


def _inside(axis: Axis, rest: Sequence[Tile]) -> list[int]:
    end = axis.stride * max(axis.whole, 1)
    return [i for i, tile in enumerate(rest) if axis.stride <= tile.stride < end]


def settled(tiles: list[Tile], active: Sequence[Merged]) -> list[Tile]:
    """What the tiles hold, judged by the uses whose values depend on the input.

    Values that do not (of relative positions) may have one for each query, which makes
    queries batch-like. And what was taken entry by entry for the same values (a loop
    over queries) are queries.
    """
    result = []
    own = any(tile.role is Role.UNSHARED for tile in tiles)
    for tile in tiles:
        role = tile.role
        shared = any(tile.stride in use.shared for use in active)
        if role is Role.BATCH and not shared:
            selecting = [use for use in active if tile.stride in use.selected]
            if selecting:
                loop = not own and all(_same_values(u, tile, tiles) for u in selecting)
                role = Role.UNSHARED if loop else Role.BATCH
            else:
                found = {each.role_at(tile.stride) for u in active for each in u.uses}
                for better in (Role.UNSHARED, Role.BROADCAST):
                    if better in found:
                        role = better
                        break
        result.append(replace(tile, role=role))
    return result


def _same_values(use: Merged, tile: Tile, tiles: Sequence[Tile]) -> bool:
    """Whether every entry of a tile weighs the same values."""
    rest = [each for each in tiles if each.role is not Role.KEYS]
    at = rest.index(tile)
    if not bool(use.filled.all()) or use.filled.shape[at] < 2:
        return False
    first = use.numbers.narrow(at, 0, 1)
    return torch.equal(use.numbers, first.expand_as(use.numbers))
