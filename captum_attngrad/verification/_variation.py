"""Vary attention weights a little, pair by pair, whatever computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from captum_attngrad.attr._core.products import tiles
from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture._sites import FusedSite, SoftmaxSite
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture.calls import AttentionCall, FusedCall


class Direction(NamedTuple):
    """The weights of a call become ``A_qk (1 + step r_q c_k)``."""

    call: AttentionCall
    rows: Tensor  # r, (batch, heads, queries)
    columns: Tensor  # c, (batch, heads, keys)


def random_direction(call: AttentionCall, generator: torch.Generator) -> Direction:
    """Other numbers for every example, head, query and key."""
    like = torch.empty(0, dtype=torch.promote_types(call.dtype, torch.float32))

    def numbers(heads: int, length: int) -> Tensor:
        made = torch.randn(call.batch_size, heads, length, generator=generator)
        return made.to(call.device, like.dtype)

    groups = call.groups if isinstance(call, FusedCall) else 1
    columns = numbers(call.heads // groups, call.key_length)
    return Direction(
        call,
        numbers(call.heads, call.query_length),
        columns.repeat_interleave(groups, dim=1),
    )


def predicted_change(direction: Direction) -> Tensor:
    """``sum r_q c_k A_qk G_qk``: what the gradient says of the score, ``(batch,)``."""
    call = direction.call
    total = torch.zeros(call.batch_size, dtype=direction.rows.dtype, device=call.device)
    if not call.on_path:
        return total
    for rows in tiles(call):
        pairs = call.weights(rows) * call.gradient(rows)
        pairs = torch.einsum("bhqk,bhk->bhq", pairs, direction.columns.to(pairs))
        total += (pairs * direction.rows[:, :, rows].to(pairs)).sum((1, 2)).to(total)
    return total


class Vary(Intervention):
    """Takes a step into a direction at some calls."""

    def __init__(self, directions: Mapping[int, Direction], step: float) -> None:
        self._directions, self._step = directions, step

    def output(self, site: FusedSite) -> Tensor | None:
        if site.index not in self._directions:
            return None
        call, rows, columns = self._directions[site.index]
        assert isinstance(call, FusedCall)
        columns = columns[:, :: call.groups]
        if call.groups == 1:
            columns = call.as_called(columns.unsqueeze(-1))
        else:
            columns = columns.unsqueeze(-1)
        # (A c) v = A (c v): the kernel can stay.
        value = site.value
        change = site.attend(value * columns.to(value))
        change = change * call.as_called(rows.unsqueeze(-1)).to(value)
        return site.attend(value) + self._step * change

    def replaced(self, site: SoftmaxSite) -> Tensor | None:
        if site.index not in self._directions:
            return None
        call, rows, columns = self._directions[site.index]
        assert isinstance(call, SoftmaxCall)
        change = call.as_called(rows.unsqueeze(-1) * columns.unsqueeze(-2))
        return site.weights * (1 + self._step * change.to(site.weights))
