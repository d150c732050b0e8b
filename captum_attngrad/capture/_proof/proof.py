"""Decide from fingerprints what the dimensions of attention weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._layout.layout import Layout
from captum_attngrad.capture._layout.weighing import Role, Tile
from captum_attngrad.capture._proof.probe import Change, Seen
from captum_attngrad.capture._proof.uses import Merged, merge, settled
from captum_attngrad.capture.keys import KeyStatus

# Differences that are rounding, relative to the largest number of their entry.
# Mixtures of experts multiply other matrices when the tokens of one example change.
_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
_ROUNDING_HALF = 2e-2


class NotProvedError(Exception):
    """The layout of a call could not be proved."""


class RefutedError(NotProvedError):
    """No layout fits, which was proved."""


@dataclass(frozen=True)
class Evidence:
    """What changed at one call.

    Args:
        tiles (list of Tile): of the weights.
        rows (Tensor): booleans ``(runs, *tiles but the keys, 2)``: from keys whose
            tokens stay the same, from all keys.
        values (Tensor): booleans ``(runs, *tiles but the keys or 1, keys)``.
        mixed_uses (bool): values that were weighed one after the other changed in
            different ways.
    """

    tiles: list[Tile]
    rows: Tensor
    values: Tensor
    mixed_uses: bool

    @property
    def anything(self) -> bool:
        return bool(self.rows.any()) or bool(self.values.any())


def evidence(tiles: list[Tile], before: Seen, after: Sequence[Seen]) -> Evidence:
    """Compare the runs with changes to the one without."""
    rest = [tile for tile in tiles if tile.role is not Role.KEYS]
    assert before.rows is not None
    half = before.half
    rows = []
    for run, seen in enumerate(after):
        assert seen.rows is not None
        which = [run, -1]
        rows.append(_differ(before.rows[..., which, :], seen.rows[..., which, :], half))
    shape = [tile.size for tile in rest]
    flags = torch.stack(rows).reshape(len(after), *shape, 2)
    merged: dict[Any, Merged] = {}
    fused = not tiles[0].stride
    for i, (use, base) in enumerate(before.values):
        parts = [seen.values[i][1] for seen in after]
        changed = torch.stack([_differ(base, part, half) for part in parts])
        if fused or use is None:
            lead = [t.size for t in rest if t.role is not Role.UNSHARED]
            changed = changed.reshape(len(after), *lead, 1, base.shape[-2])
            merged[None] = Merged(changed)
        else:
            merge(merged, use, changed, base, tiles)
    if not merged:
        raise NotProvedError("its values could not be followed")
    uses = list(merged.values())
    active = [use for use in uses if bool(use.changed.any())] or uses[:1]
    first = active[0].changed
    same = all(
        use.changed.shape == first.shape and torch.equal(use.changed, first)
        for use in active
    )
    values = first
    for each in active[1:]:
        values = values | each.changed
    if not fused:
        tiles = settled(tiles, active)
    return Evidence(tiles, flags, values, not same)


def _differ(one: Tensor, two: Tensor, half: bool) -> Tensor:
    """Which entries have changed, by any of the numbers in the last dimension."""
    if one.shape != two.shape:
        raise NotProvedError("the model works on other sizes when tokens change")
    tolerance = _ROUNDING_HALF if half else _ROUNDING[one.dtype]
    one, two = (torch.nan_to_num(t.double()) for t in (one, two))
    # One mixture alone may be small by cancellation, which makes its rounding large.
    size = torch.maximum(one.abs(), two.abs()).amax(dim=(-2, -1), keepdim=True)
    return ((one - two).abs() > tolerance * size).any(dim=-1)


def proved_layout(found: Evidence, changes: Sequence[Change], batch: int) -> Layout:
    """Where the examples are, and which dimensions are heads.

    Raises:
        NotProvedError: with the reason.
    """
    tiles = found.tiles
    rest = [i for i, tile in enumerate(tiles) if tile.role is not Role.KEYS]
    keys = next(i for i, tile in enumerate(tiles) if tile.role is Role.KEYS)
    lead = [i for i in rest if tiles[i].role in (Role.BATCH, Role.BROADCAST)]
    own = [i for i in rest if tiles[i].role is Role.UNSHARED]
    examples, inner = None, False
    if batch > 1:
        examples, inner = _examples(found, changes, batch, rest, lead, own)
        if examples in own:
            own.remove(examples)
            lead = sorted([*lead, examples])
    if not any(tiles[i].size > 1 for i in own):
        # w.unsqueeze(-2) @ v.unsqueeze(2): rows that follow the tokens are queries.
        rows = [
            i
            for i in lead
            if tiles[i].role is Role.BROADCAST
            and i != examples
            and _varies(found, rest.index(i))
        ]
        lead = [i for i in lead if i not in rows]
        own = sorted([*own, *rows])
    if len(own) > 1:
        vary = [i for i in own if tiles[i].size == 1 or _varies(found, rest.index(i))]
        if not vary:
            raise NotProvedError(
                f"its {len(own)} dimensions besides examples and keys cannot be told "
                "into heads and queries"
            )
        lead = sorted([*lead, *(i for i in own if i not in vary)])
        own = vary
    return Layout(tuple(lead), examples, inner, tuple(own), keys)


def _examples(
    found: Evidence,
    changes: Sequence[Change],
    batch: int,
    rest: list[int],
    lead: list[int],
    own: list[int],
) -> tuple[int, bool]:
    shared = any(found.tiles[i].role is Role.BATCH for i in lead)
    # Examples are queries only of values that all of them have in common.
    for candidates in (lead,) if shared else (lead, own):
        possible = [
            (i, inner)
            for i in candidates
            if found.tiles[i].size % batch == 0
            for inner in ((False, True) if found.tiles[i].size > batch else (False,))
        ]
        fitting: list[tuple[int, bool]] = []
        # All of an example changes; or a part of it, where it comes in windows.
        for whole in (True, False):
            fitting = fitting or [
                (i, inner)
                for i, inner in possible
                if _fits(found, changes, batch, rest.index(i), inner, whole)
            ]
        if fitting and candidates is own and bool(found.values.any()):
            raise NotProvedError(
                "its queries are the examples, which attend to each other"
            )
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise NotProvedError("several of its dimensions may hold the examples")
    raise (RefutedError if found.anything else NotProvedError)(
        "no dimension of it holds the examples one by one: they share their attention, "
        "or influence each other"
    )


def _fits(
    found: Evidence,
    changes: Sequence[Change],
    batch: int,
    at: int,
    inner: bool,
    whole: bool,
) -> bool:
    """Whether entries of changed examples have changed, and no others: all of them
    (whole), or some."""
    rows = _by_tile(found.rows, at)
    values = found.values
    if values.shape[at + 1] == rows.shape[1]:
        rows = rows | _by_tile(values, at)
    size = rows.shape[1]
    index = torch.arange(size)
    owner = index % batch if inner else index // (size // batch)
    expected = torch.stack([change.examples[owner] for change in changes])
    if bool((rows & ~expected).any()):
        return False
    if whole:
        # Heads may be dead.
        return bool((rows | ~expected | ~rows.any(dim=0)).all()) and bool(rows.any())
    # Windows without a changed token stay as they are, and so do examples of which only
    # padding is changed: what changes is the evidence.
    return bool(rows.any())


def _by_tile(flags: Tensor, at: int) -> Tensor:
    """``(runs, size)``: in which entries of one tile anything changed."""
    flags = flags.movedim(at + 1, 1)
    return flags.reshape(*flags.shape[:2], -1).any(dim=2)


def _varies(found: Evidence, at: int) -> bool:
    rows = found.rows[..., 0].movedim(at + 1, -1)
    return bool((rows != rows[..., :1]).any())


def key_flags(
    found: Evidence, layout: Layout, changes: Sequence[Change], batch: int
) -> tuple[Tensor, bool]:
    """``(runs, batch, keys)``: which keys of the changed examples changed; and whether
    the heads of one example have different keys."""
    rest = [i for i, tile in enumerate(found.tiles) if tile.role is not Role.KEYS]
    kept = [n for n, i in enumerate(rest) if i in layout.lead]
    gone = [n for n in range(len(rest)) if n not in kept]
    lead = [found.tiles[rest[n]].size for n in kept]
    runs = []
    for run in found.values:
        flags = run.permute(*kept, *gone, len(rest))
        flags = flags.flatten(len(kept), -2) if gone else flags.unsqueeze(-2)
        flags = flags.any(dim=-2, keepdim=True).expand(*lead, 1, flags.shape[-1])
        runs.append(layout.lead_arranged(flags, batch)[:, :, 0])
    heads = torch.stack(runs)  # (runs, batch, heads, keys)
    changed = torch.stack([change.examples for change in changes])[:, :, None, None]
    heads = heads & changed
    # Heads that never change say nothing.
    alive = heads.any(dim=-1, keepdim=True).any(dim=0, keepdim=True)
    differ = alive & (heads != heads.any(dim=2, keepdim=True))
    apart = found.mixed_uses or bool(differ.any())
    return heads.any(dim=2), apart


def key_status(
    flags: Tensor,
    alive: Sequence[Tensor | None],
    tokens: Sequence[Tensor],
    integers: bool,
) -> KeyStatus:
    """What keys stand for, from the runs in which they changed.

    Args:
        flags (Tensor): booleans ``(runs, batch, keys)``.
        alive (sequence of Tensor or None): for each of ``tokens`` the keys that change
            when all of them do, booleans ``(batch, keys)``. (Those of padding may not,
            nor those of image tokens.) None: all keys
        tokens (sequence of Tensor): of each sequence that the keys depend on, which
            tokens were changed, ``(runs, batch, length)``.
        integers (bool): they depend on token ids.
    """
    if not bool(flags.any()):
        return KeyStatus.CONSTANT
    keys = flags.shape[2]
    mixed = as_many = False
    for expected, changing in zip(tokens, alive, strict=True):
        length = expected.shape[2]
        # There may be further keys at one end: a prefix, or a learned key.
        for first in {0, keys - length} if length <= keys else set():
            window = flags[..., first : first + length]
            if int(flags.sum()) > int(window.sum()):
                continue
            here = None if changing is None else changing[:, first : first + length]
            if torch.equal(window, expected if here is None else expected & here):
                return KeyStatus.TOKENS
        if length == keys:
            missing = expected & ~flags
            missing = missing if changing is None else missing & changing
            mixed = mixed or not bool(missing.any())
            as_many = True
    if mixed:
        return KeyStatus.MIXED
    return KeyStatus.OTHER if integers or as_many else KeyStatus.FEATURES


def same_keys(one: Tensor, two: Tensor) -> bool:
    """Whether two calls can have the same keys: what changes one changes the other, but
    for what was mixed into one of them on the way."""
    if one.shape != two.shape or bool(one.any()) != bool(two.any()):
        return False
    return not bool((one & ~two).any()) or not bool((two & ~one).any())
