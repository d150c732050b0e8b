"""The update rules of attention relevance (Chefer et al. 2021).

``Abar`` is the mean over heads of ``A * G``, negative entries set to 0 unless signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from captum_attngrad.attr._core.layer_calls import mean_over_heads
from captum_attngrad.attr._core.products import tiles, transposed_attention
from captum_attngrad.attr._core.reductions import PairScores, zeros
from captum_attngrad.attr._core.selection import select
from captum_attngrad.capture.calls import AttentionCall, FusedCall, widened


@dataclass(frozen=True)
class MeanRelevance:
    """``Abar`` of a call, and products with it."""

    signed: bool
    heads: dict[str, Tensor | None]

    def _blocks(self, call: AttentionCall) -> Iterator[tuple[slice, Tensor]]:
        """Rows of ``Abar``, ``(batch, rows, keys)``."""
        pairs = PairScores(multiply=True, positive_only=not self.signed)
        for rows in tiles(call):
            yield rows, self._mean(call, pairs.of_pairs(call, rows))

    def _mean(self, call: AttentionCall, scores: Tensor) -> Tensor:
        """Over the chosen heads."""
        return mean_over_heads(select(scores, self.heads[call.layer]))

    def row_times(self, rows: Tensor, call: AttentionCall) -> Tensor:
        """``r^T Abar``, ``(batch, queries)`` to ``(batch, keys)``."""
        if not call.on_path:
            return zeros(call, call.key_length)
        if self.signed and isinstance(call, FusedCall):
            # sum_q r_q A_qk G_qk = v_k . (sum_q A_qk r_q dO_q)
            value = widened(call.value)
            gradient = call.output_gradient.to(value.dtype)
            weighted = transposed_attention(call, gradient * rows[:, None, :, None])
            return self._mean(call, (value * weighted).sum(dim=-1))
        total = zeros(call, call.key_length)
        for block, relevance in self._blocks(call):
            total = total + (rows[:, None, block] @ relevance).squeeze(1)
        return total

    def matrix(self, call: AttentionCall) -> Tensor:
        """``Abar`` itself, ``(batch, queries, keys)``."""
        return torch.cat([block for _, block in self._blocks(call)], dim=1)


class Step(NamedTuple):
    """One attention call in a model with two sequences (0: the explained one)."""

    call: AttentionCall
    queries: int
    keys: int


@dataclass
class _Sequence:
    """One of two sequences that attend to each other.

    Args:
        own (Tensor): ``R^ss``, the relevance of its tokens to its tokens.
        other (Tensor): ``R^sq``, the relevance of the other sequence's tokens to them.
    """

    own: Tensor
    other: Tensor

    @classmethod
    def start(cls, call: AttentionCall, own: int, other: int) -> _Sequence:
        eye = torch.eye(own, device=call.device, dtype=zeros(call).dtype)
        every = eye.expand(call.batch_size, own, own)
        return cls(every, zeros(call, own, other))

    def attend_to_itself(self, relevance: Tensor) -> None:
        """Rules 6 and 7 of the paper."""
        self.own, self.other = (
            self.own + relevance @ self.own,
            self.other + relevance @ self.other,
        )

    def attended(self, to: _Sequence, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Rules 10 and 11: what attention to the other sequence adds to ``other`` and
        to ``own``."""
        mixed = _normalized(self.own).mT @ relevance @ _normalized(to.own)
        return mixed, relevance @ to.other


def _normalized(own: Tensor) -> Tensor:
    """Rules 8 and 9: what self-attention has added to the identity, each row summing
    to 1 (in absolute value where entries are signed). A row to which nothing has been
    added stays as it is."""
    eye = torch.eye(own.shape[-1], device=own.device, dtype=own.dtype)
    added = own - eye
    sums = added.abs().sum(dim=-1, keepdim=True)
    return added / sums.masked_fill(sums == 0, 1) + eye


def relevance_of_two(steps: list[Step], mean: MeanRelevance) -> tuple[Tensor, Tensor]:
    """``R^ss`` and ``R^sq`` of the explained sequence, ``(batch, its tokens, tokens)``.

    Cross attention in both directions without self-attention in between counts as
    simultaneous: both see what was there before.
    """
    crossing = next(step for step in steps if step.queries != step.keys)
    lengths = {
        crossing.queries: crossing.call.query_length,
        crossing.keys: crossing.call.key_length,
    }
    both = (
        _Sequence.start(steps[0].call, lengths[0], lengths[1]),
        _Sequence.start(steps[0].call, lengths[1], lengths[0]),
    )
    waiting: dict[int, tuple[Tensor, Tensor]] = {}

    def update() -> None:
        for i, (mixed, own) in waiting.items():
            both[i].other = both[i].other + mixed
            both[i].own = both[i].own + own
        waiting.clear()

    for step in steps:
        if step.queries == step.keys or step.queries in waiting:
            update()
        sequence = both[step.queries]
        matrix = mean.matrix(step.call).to(sequence.own)
        if step.queries == step.keys:
            sequence.attend_to_itself(matrix)
        else:
            waiting[step.queries] = sequence.attended(both[step.keys], matrix)
    update()
    return both[0].own, both[0].other
