"""From the gradient of the attention weights to one score per key.

Notation as in the docstrings of the methods: weights ``A``, gradient ``G``, values
``v``, output ``O = A v``, ``D_q = sum_k A_qk G_qk`` and ``m`` for the allowed pairs.
On fused calls the sums over queries have closed forms, in which no tensor with both
queries and keys appears; ``dO`` and ``dv`` are what the fused backward kernel gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_attngrad.capture._masks import PairMask
from captum_attngrad.capture.calls import (
    ALL_ROWS,
    AttentionCall,
    FusedCall,
    Rows,
    widened,
)

# A block of mask rows is at most this many elements.
_BLOCK = 1 << 22


def pair_scores(
    call: AttentionCall, multiply: bool, center: bool, rows: Rows = ALL_ROWS
) -> Tensor:
    """Scores of (query, key) pairs, ``(batch, heads, rows, keys)``.

    Args:
        call (AttentionCall): a call with gradients.
        multiply (bool): multiply by the attention weights.
        center (bool): take the weighted row mean ``D_q`` off.
        rows (slice or Tensor): all query rows, some, or one for each example.
    """
    scores = call.gradient(rows)
    if not (multiply or center):
        return scores
    weights = call.weights(rows)
    if center:
        scores = scores - (weights * scores).sum(dim=-1, keepdim=True)
        allowed = call.allowed(rows)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, 0)
    return scores * weights if multiply else scores


def key_scores(call: AttentionCall, multiply: bool, center: bool) -> Tensor:
    """:func:`pair_scores` summed over all queries, ``(batch, heads, keys)``."""
    if not isinstance(call, FusedCall):
        return pair_scores(call, multiply, center).sum(dim=2)
    value = widened(call.value)
    output_gradient = call.output_gradient.to(value.dtype)
    if multiply:
        # sum_q A_qk G_qk = v_k . dv_k
        scores = (value * call.value_gradient.to(value.dtype)).sum(dim=-1)
        if center:
            # sum_q A_qk (G_qk - D_q) = v_k . dv_k - (A^T D)_k
            row_mean = _row_mean(call, output_gradient)
            scores = scores - _transposed_attention(call, row_mean)
        return scores
    if not center:
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


def _row_mean(call: FusedCall, output_gradient: Tensor) -> Tensor:
    """``D_q = sum_k A_qk G_qk = dO_q . O_q``, ``(batch, heads, queries)``."""
    return (output_gradient * call.output.to(output_gradient.dtype)).sum(dim=-1)


def _transposed_attention(call: FusedCall, row_mean: Tensor) -> Tensor:
    """``A^T D``, the value gradient of one more fused call, ``(batch, heads, keys)``.

    The values have as many channels as the call's own, so that the same kernel runs;
    D is the output gradient of the first.
    """
    with torch.enable_grad():
        value = torch.zeros_like(widened(call.value)).requires_grad_()
        output = call.attend(value)
    gradient = torch.zeros_like(output)
    gradient[..., 0] = row_mean
    (result,) = torch.autograd.grad(output, value, gradient)
    return result[..., 0]


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
    batch, heads, queries, width = channels.shape
    sums = channels.new_zeros(batch, heads, pairs.key_length, width)
    step = max(1, _BLOCK // max(1, pairs.key_length * batch))
    for start in range(0, queries, step):
        rows = slice(start, start + step)
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


def _only_allowed(call: FusedCall, scores: Tensor) -> Tensor:
    """Clear keys that no query may see."""
    pairs = call.pairs
    if pairs.unrestricted or not pairs.same_for_every_query():
        return scores  # the sum over queries has done it
    allowed = pairs.allowed(slice(0, 1), scores.device)
    assert allowed is not None
    return scores.masked_fill(~allowed.squeeze(2), 0)
