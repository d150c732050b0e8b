"""From the gradient of the attention weights to sums of it.

Notation as in the docstrings of the methods: weights ``A``, gradient ``G``, values
``v``, output ``O = A v``, ``D_q = sum_k A_qk G_qk`` and ``m`` for the allowed pairs.
On fused calls the sums over queries have closed forms, in which no tensor with both
queries and keys appears; ``dO`` and ``dv`` are what the fused backward kernel gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_attngrad.attr._core.products import tiles, transposed_attention
from captum_attngrad.capture import _masks
from captum_attngrad.capture._masks import PairMask
from captum_attngrad.capture.calls import (
    ALL_ROWS,
    AttentionCall,
    FusedCall,
    Rows,
    widened,
)


@dataclass(frozen=True)
class PairScores:
    """What the score of a (query, key) pair is made of. Calls without influence on the
    output have scores of 0.

    Args:
        multiply (bool): multiply the gradient by the attention weights.
        center (bool): subtract the weighted row mean ``D_q`` from the gradient.
        positive_only (bool): set negative scores of pairs to 0.
    """

    multiply: bool = False
    center: bool = False
    positive_only: bool = False

    @property
    def uses_value_gradients(self) -> bool:
        """Whether the sums over the queries need ``dv``."""
        return self.multiply and not self.positive_only

    def of_pairs(self, call: AttentionCall, rows: Rows = ALL_ROWS) -> Tensor:
        """``(batch, heads, rows, keys)``, for all query rows, some, or one for each
        example."""
        if not call.on_path:
            return zeros(call, call.heads, _number_of_rows(call, rows), call.key_length)
        scores = call.gradient(rows)
        if self.multiply or self.center:
            weights = call.weights(rows)
            if self.center:
                scores = scores - (weights * scores).sum(dim=-1, keepdim=True)
                allowed = call.allowed(rows)
                if allowed is not None:
                    scores = scores.masked_fill(~allowed, 0)
            if self.multiply:
                scores = scores * weights
        return scores.clamp_min(0) if self.positive_only else scores

    def of_keys(self, call: AttentionCall, rows: Tensor | None = None) -> Tensor:
        """Summed over all queries, or in one row for each example, ``(batch, heads,
        keys)``."""
        if rows is not None:
            return self.of_pairs(call, rows).squeeze(2)
        if not call.on_path:
            return zeros(call, call.heads, call.key_length)
        if not isinstance(call, FusedCall):
            return self.of_pairs(call).sum(dim=2)
        if self.positive_only:
            # No closed form: blocks of rows.
            parts = [self.of_pairs(call, rows).sum(dim=2) for rows in tiles(call)]
            return torch.stack(parts).sum(dim=0)
        value = widened(call.value)
        output_gradient = call.output_gradient.to(value.dtype)
        if self.multiply:
            # sum_q A_qk G_qk = v_k . dv_k
            scores = (value * call.value_gradient.to(value.dtype)).sum(dim=-1)
            if self.center:
                # sum_q A_qk (G_qk - D_q) = v_k . dv_k - (A^T D)_k
                row_mean = _row_mean(call, output_gradient).unsqueeze(-1)
                scores = scores - transposed_attention(call, row_mean).squeeze(-1)
            return scores
        if not self.center:
            # sum_q m_qk G_qk = (sum_q m_qk dO_q) . v_k
            sums = _sum_over_queries(call.pairs, output_gradient)
            return _only_allowed(call, (sums * value).sum(dim=-1))
        # sum_q m_qk (G_qk - D_q): D goes along as one more channel
        row_mean = _row_mean(call, output_gradient)
        sums = _sum_over_queries(
            call.pairs, torch.cat([output_gradient, row_mean.unsqueeze(-1)], dim=-1)
        )
        scores = (sums[..., :-1] * value).sum(dim=-1) - sums[..., -1]
        return _only_allowed(call, scores)

    def of_queries(self, call: AttentionCall) -> Tensor:
        """Summed over all keys, ``(batch, heads, queries)``."""
        if not call.on_path:
            return zeros(call, call.heads, call.query_length)
        if not isinstance(call, FusedCall):
            return self.of_pairs(call).sum(dim=3)
        if self.positive_only or (self.multiply and self.center):
            parts = [self.of_pairs(call, rows).sum(dim=3) for rows in tiles(call)]
            return torch.cat(parts, dim=2)
        value = widened(call.value)
        output_gradient = call.output_gradient.to(value.dtype)
        row_mean = _row_mean(call, output_gradient)
        if self.multiply:
            return row_mean  # sum_k A_qk G_qk = D_q
        # sum_k m_qk G_qk = dO_q . (sum_k m_qk v_k), with a count of the keys as one
        # more channel where D_q is subtracted from each of them
        ones = torch.ones_like(value[..., :1])
        sums = _sum_over_keys(call.pairs, torch.cat([value, ones], dim=-1))
        scores = (sums[..., :-1] * output_gradient).sum(dim=-1)
        return scores - sums[..., -1] * row_mean if self.center else scores


def zeros(call: AttentionCall, *shape: int) -> Tensor:
    """``(batch, *shape)``, in the dtype of scores."""
    dtype = torch.float64 if call.dtype == torch.float64 else torch.float32
    return torch.zeros(call.batch_size, *shape, dtype=dtype, device=call.device)


def _number_of_rows(call: AttentionCall, rows: Rows) -> int:
    if isinstance(rows, Tensor):
        return 1
    return len(range(*rows.indices(call.query_length)))


def _row_mean(call: FusedCall, output_gradient: Tensor) -> Tensor:
    """``D_q = sum_k A_qk G_qk = dO_q . O_q``, ``(batch, heads, queries)``."""
    return (output_gradient * call.output.to(output_gradient.dtype)).sum(dim=-1)


def _sum_over_queries(pairs: PairMask, channels: Tensor) -> Tensor:
    """``sum_q m_qk x_q``: ``(batch, heads, queries, c)`` to ``(.., keys or 1, c)``.

    Where all queries see the same keys the sum is the same for every key that is
    allowed; :func:`_only_allowed` clears the others.
    """
    if pairs.mask is None and pairs.causal:
        # Key k is seen by the queries from k on: a cumulative sum from the end.
        sums = channels.flip(2).cumsum(dim=2).flip(2)[:, :, : pairs.key_length]
        missing = pairs.key_length - sums.shape[2]
        return torch.nn.functional.pad(sums, (0, 0, 0, missing))
    if pairs.same_for_every_query():
        return channels.sum(dim=2, keepdim=True)
    batch, heads, _, width = channels.shape
    sums = channels.new_zeros(batch, heads, pairs.key_length, width)
    for rows in _blocks(pairs, batch):
        allowed = pairs.allowed(rows, channels.device)
        assert allowed is not None
        block = channels[:, :, rows]
        if allowed.shape[1] == 1 or allowed.stride(1) == 0:
            # One mask for all heads: one product, with the heads as channels.
            block = block.transpose(1, 2).reshape(batch, 1, -1, heads * width)
            part = allowed[:, :1].to(block.dtype).transpose(-2, -1) @ block
            part = part.view(batch, -1, heads, width).transpose(1, 2)
        else:
            part = allowed.to(block.dtype).transpose(-2, -1) @ block
        sums += part
    return sums


def _sum_over_keys(pairs: PairMask, channels: Tensor) -> Tensor:
    """``sum_k m_qk x_k``: ``(batch, heads, keys, c)`` to ``(.., queries or 1, c)``."""
    if pairs.unrestricted:
        return channels.sum(dim=2, keepdim=True)
    if pairs.mask is None and pairs.causal:
        # Query q sees the keys up to q.
        sums = channels.cumsum(dim=2)
        last = torch.arange(pairs.query_length, device=channels.device)
        return sums[:, :, last.clamp_max(pairs.key_length - 1)]
    if pairs.same_for_every_query():
        allowed = pairs.allowed(slice(0, 1), channels.device)
        assert allowed is not None
        return allowed.to(channels.dtype) @ channels
    parts = []
    for rows in _blocks(pairs, channels.shape[0] * channels.shape[1]):
        allowed = pairs.allowed(rows, channels.device)
        assert allowed is not None
        parts.append(allowed.to(channels.dtype) @ channels)
    return torch.cat(parts, dim=2)


def _blocks(pairs: PairMask, copies: int) -> Iterator[slice]:
    """Blocks of mask rows, of which as many copies are made."""
    step = max(1, _masks.BLOCK // max(1, pairs.key_length * copies))
    for start in range(0, pairs.query_length, step):
        yield slice(start, start + step)


def _only_allowed(call: FusedCall, scores: Tensor) -> Tensor:
    """Clear keys that no query may see."""
    pairs = call.pairs
    if pairs.unrestricted or not pairs.same_for_every_query():
        return scores  # the sum over queries has done it
    allowed = pairs.allowed(slice(0, 1), scores.device)
    assert allowed is not None
    return scores.masked_fill(~allowed.squeeze(2), 0)
