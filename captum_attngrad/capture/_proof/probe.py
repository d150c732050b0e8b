"""Forward passes that show what depends on which part of the input.

Attention is switched off, so that what a position holds depends on its own token only,
and some tokens of some examples are changed. What has changed at an attention call
tells which of its entries belong to which example, and which token a key stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_attngrad.capture._interventions import Intervention, Operation
from captum_attngrad.capture._layout.weighing import (
    Use,
    fingerprint,
    mixed,
    mixtures,
)
from captum_attngrad.capture._sites import FusedSite, SoftmaxSite
from captum_attngrad.capture._softmax.operations import SOFTMAX

RUNS = 3  # forward passes with changes


@dataclass
class Seen:
    """Fingerprints at one attention call.

    Attributes:
        rows (Tensor): one for each entry of the weights but the keys, in the model's
            own layout. Then: for each run from the keys whose tokens it does not
            change, and from all keys; and several numbers for each.
        half (bool): whether the call works in half precision.
        values (list): for each use of the weights (None: a fused call) one for each
            entry of the values: the dimensions that both have, keys, and then several
            numbers for each.
    """

    rows: Tensor | None = None
    half: bool = False
    values: list[tuple[Use | None, Tensor]] = field(default_factory=list)


class Probe(Intervention):
    """Takes fingerprints at some calls.

    Args:
        sites (set of int): the attention calls.
        off (bool): whether these calls, and attention outside the recorded layers,
            give 0 instead of what they attend to.
        changes (list of Change): of all runs.
    """

    follows = True

    def __init__(self, sites: set[int], off: bool, changes: list[Change]) -> None:
        self._sites, self._off, self._changes = sites, off, changes
        self.sees_operations = off
        self.seen: dict[int, Seen] = {}

    def operation(self, operation: Operation) -> Any:
        """Outside the recorded layers attention is off too, as far as its shape tells
        it from other softmaxes."""
        result = operation.run()
        if operation.recorded:
            return result
        if operation.func is F.scaled_dot_product_attention:
            return torch.zeros_like(result)
        if operation.name in SOFTMAX and isinstance(result, Tensor):
            dims = result.dim()
            square = dims == 3 and result.shape[-1] == result.shape[-2]
            return torch.zeros_like(result) if dims > 3 or square else result
        return result

    def output(self, site: FusedSite) -> Tensor | None:
        if site.index not in self._sites:
            return None
        query, key, value = site.query, site.key, site.value
        seen = self.seen.setdefault(site.index, Seen())
        rows = mixed(query).unsqueeze(-2)
        seen.rows = rows.expand(*rows.shape[:-2], RUNS + 1, -1).cpu()
        groups = query.shape[-3] // key.shape[-3] if key.dim() > 3 else 1
        if groups > 1:
            key, value = (t.repeat_interleave(groups, dim=-3) for t in (key, value))
        both = torch.cat([key, value], dim=-1)
        seen.half = is_half(value)
        seen.values.append((None, mixed(both).cpu()))
        if not self._off:
            return site.attend(value)
        shape = (*query.shape[:-1], value.shape[-1])
        return value.new_zeros(shape)

    def replaced(self, site: SoftmaxSite) -> Tensor | None:
        if site.index not in self._sites:
            return None
        seen = self.seen.setdefault(site.index, Seen())
        finite = site.scores.detach().movedim(site.dim, -1)
        finite = finite.to(torch.promote_types(finite.dtype, torch.float32))
        finite = finite.masked_fill(~(finite.abs() < 1e4), 0)
        every = mixtures(finite)
        kept = [_kept(c, len(every)).to(every.device) for c in self._changes]
        products = [finite @ (every * of_run[:, None]) for of_run in kept]
        seen.rows = torch.stack([*products, finite @ every], dim=-2).cpu()
        return torch.zeros_like(site.weights) if self._off else site.weights

    def weighed(self, index: int, values: Tensor, use: Use) -> None:
        if index in self._sites:
            found = fingerprint(values, use.weighing).cpu()
            seen = self.seen.setdefault(index, Seen())
            seen.half = seen.half or is_half(values)
            seen.values.append((use, found))


@dataclass(frozen=True)
class Change:
    """Which tokens of which examples are changed in one forward pass.

    Args:
        examples (Tensor): booleans, ``(batch,)``.
        positions (Sequence): for each input the changed positions of dimension 1,
            ``(length,)``; None for an input that is left as it is.
    """

    run: int
    examples: Tensor
    positions: Sequence[Tensor | None]


def _kept(change: Change, keys: int) -> Tensor:
    """Which keys stand for tokens that are not changed, if keys are tokens."""
    for positions in change.positions:
        if positions is not None and len(positions) == keys:
            return ~positions
    return torch.ones(keys, dtype=torch.bool)


def is_half(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def only_change(change: Change, which: int) -> Change:
    """The same change of one of the inputs alone."""
    positions = [p if i == which else None for i, p in enumerate(change.positions)]
    return Change(change.run, change.examples, positions)


def whole_change(inputs: Sequence[Any], batch: int, which: int) -> Change:
    """All of one input is changed, in all examples."""
    positions = [
        torch.ones(each.shape[1], dtype=torch.bool) if i == which else None
        for i, each in enumerate(inputs)
    ]
    return Change(RUNS, torch.ones(batch, dtype=torch.bool), positions)


def changes(inputs: Sequence[Any], batch: int) -> list[Change]:
    lengths: dict[int, list[Tensor]] = {}
    made = []
    for run in range(RUNS):
        positions: list[Tensor | None] = []
        for each in inputs:
            if not _can_change(each):
                positions.append(None)
                continue
            length = each.shape[1]
            patterns = lengths.setdefault(length, _patterns(length))
            positions.append(patterns[run])
        made.append(Change(run, _examples(batch, run), positions))
    return made


def _can_change(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dim() > 1
        and value.dtype != torch.bool
        and not value.is_complex()
    )


def _patterns(length: int) -> list[Tensor]:
    """For each run, which positions are changed: no two alike, and not periodic. In
    the last run all are, so that no part of an example can be taken for it."""
    numbers = torch.arange(1, length + 1)
    generator = torch.Generator().manual_seed(length)
    patterns = []
    for run in range(RUNS):
        pattern = (numbers >> run) % 2 == 1
        if length > 7:
            pattern = torch.rand(length, generator=generator) < 0.5
            pattern[run] = True
            pattern[-1 - run] = False
        if run == RUNS - 1:
            pattern = torch.ones(length, dtype=torch.bool)
        elif not bool(pattern.any()):
            pattern = numbers == numbers[run % length]
        patterns.append(pattern)
    return patterns


def _examples(batch: int, run: int) -> Tensor:
    """The first half, every other one, some."""
    index = torch.arange(batch)
    if batch == 1:
        return torch.ones(1, dtype=torch.bool)
    if run == 0:
        return index < batch // 2
    if run == 1:
        return index % 2 == 1
    generator = torch.Generator().manual_seed(batch)
    chosen = torch.rand(batch, generator=generator) < 0.5
    chosen[0], chosen[-1] = False, True
    return chosen


class Perturbation(Intervention):
    """Adds noise to the embeddings of the changed tokens of integer inputs.

    Token ids stay what they are, so that padding, end tokens and position numbers do
    too.

    Attributes:
        used (set of int): of which inputs embeddings were seen.
    """

    def __init__(self, inputs: Sequence[Any], change: Change | None) -> None:
        self.sees_operations = change is not None
        self._inputs, self._change = inputs, change
        self.used: set[int] = set()

    def operation(self, operation: Operation) -> Any:
        result = operation.run()
        if self._change is not None and operation.name == "embedding":
            indices = [a for a in operation.args if is_integer(a)]
            mask = self._mask(indices[0]) if indices else None
            if mask is not None and isinstance(result, Tensor):
                return noisy(result, mask.to(result.device).unsqueeze(-1), self._change)
        return result

    def _mask(self, indices: Tensor) -> Tensor | None:
        """Which of the indices are those of changed tokens; None: they are others."""
        assert self._change is not None
        found = [
            (i, turned)
            for i, each in enumerate(self._inputs)
            if is_integer(each) and each.dim() > 1
            for turned in (False, True)
            if _same_ids(each.mT if turned else each, indices)
        ]
        # Of inputs with the same numbers, the one that shares its memory.
        where = indices.data_ptr()
        found.sort(key=lambda each: self._inputs[each[0]].data_ptr() != where)
        if not found:
            return None
        which, turned = found[0]
        positions = self._change.positions[which]
        if positions is None:
            return None
        self.used.add(which)
        mask = token_mask(self._inputs[which], positions, self._change)
        return (mask.mT if turned else mask).reshape(indices.shape)


def _same_ids(ids: Tensor, indices: Tensor) -> bool:
    if ids.shape != indices.shape and indices.shape != (ids.numel(),):
        return False
    return torch.equal(ids.reshape(-1), indices.reshape(-1).to(ids))


def oriented(ids: Any) -> Any:
    """Token ids that differ from their transpose, by one exchanged id if need be: their
    embeddings show which dimension the model has first."""
    if not is_integer(ids) or ids.dim() != 2 or len(ids) < 2:
        return ids
    if ids.shape[0] != ids.shape[1] or not torch.equal(ids, ids.mT):
        return ids
    others = ids[ids != ids[0, 1]]
    ids = ids.clone()
    ids[0, 1] = others[0] if len(others) else (ids[0, 1] - 1).abs()
    return ids


def is_integer(value: Any) -> bool:
    return isinstance(value, Tensor) and not (
        value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )


def token_mask(each: Tensor, positions: Tensor, change: Change) -> Tensor:
    """Where an input is changed, in its own shape."""
    mask = change.examples[:, None] & positions
    mask = mask.view(*mask.shape, *[1] * (each.dim() - 2)).expand(each.shape)
    return mask.to(each.device)


def perturbed(each: Any, positions: Tensor | None, change: Change) -> Any:
    """An input of numbers, with noise at the changed positions."""
    if positions is None or not each.is_floating_point():
        return each
    if each.dim() > 3:
        mask = change.examples.view(-1, *[1] * (each.dim() - 1))
        mask = mask & _block(each.shape[1:], change.run)
    else:
        mask = token_mask(each, positions, change).cpu()
        if each.dim() == 3 and change.run == 1 and each.shape[2] > 1:
            # Some features only, as channels may be explained one by one.
            mask = mask & (torch.arange(each.shape[2]) % 2 == 0)
    return noisy(each, mask.to(each.device), change)


def _block(shape: torch.Size, run: int) -> Tensor:
    """A corner of an image or a video, smaller in each run; then all of it."""
    mask = torch.ones(shape, dtype=torch.bool)
    if run >= RUNS - 1:
        return mask
    for dim, size in enumerate(shape):
        if dim == 0 and len(shape) == 3:
            continue  # the channels of an image
        extent = max(1, size >> (run + 1))
        start = (0, size // 2)[run]
        index = torch.arange(size)
        line = (index >= start) & (index < start + extent)
        mask = mask & line.view(-1, *[1] * (len(shape) - 1 - dim))
    return mask


def noisy(tensor: Tensor, mask: Tensor, change: Change) -> Tensor:
    generator = torch.Generator().manual_seed(change.run)
    # Far from 0 everywhere: what is small could pass for rounding.
    noise = 1 + torch.rand(tensor.shape, generator=generator)
    noise = (noise * torch.randn(tensor.shape, generator=generator).sign()).to(tensor)
    size = tensor.detach().abs().mean().clamp_min(1e-3)
    return tensor + noise * size * mask


def other_ids(ids: Tensor, positions: Tensor, change: Change) -> Tensor:
    """Token ids of which some are exchanged for others of the same input, except those
    that occur at an end (start, end, padding)."""
    special = torch.cat([ids[:, 0], ids[:, -1]]).unique()
    common = ids.unique()
    common = common[~torch.isin(common, special)]
    if len(common) < 2:
        common = ids.unique()
    if len(common) < 2:
        common = torch.stack([common[0], (common[0] - 1).abs()])
    mask = token_mask(ids, positions, change) & torch.isin(ids, common)
    indices = torch.searchsorted(common, ids.contiguous()).clamp_max(len(common) - 1)
    return torch.where(mask, common[(indices + 1) % len(common)], ids)
