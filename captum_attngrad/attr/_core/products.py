"""Products with the attention matrix, without building it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from captum_attngrad.capture import _masks
from captum_attngrad.capture.calls import (
    ALL_ROWS,
    AttentionCall,
    FusedCall,
    widened,
)


def tiles(call: AttentionCall) -> Iterator[slice]:
    """Blocks of query rows whose (batch, heads, rows, keys) tensors stay small; all
    rows at once where the model itself has built the weights."""
    if not isinstance(call, FusedCall):
        yield ALL_ROWS
        return
    row = max(1, call.batch_size * call.heads * call.key_length)
    step = max(1, _masks.BLOCK // row)
    for start in range(0, call.query_length, step):
        yield slice(start, start + step)


def transposed_attention(call: AttentionCall, channels: Tensor) -> Tensor:
    """``A^T x``: ``(batch, heads or 1, queries, c)`` to ``(batch, heads, keys, c)``.

    In fused calls it is the value gradient of one more fused call, where ``x`` is the
    output's gradient, with as many value channels as the call itself has, so that the
    same kernel runs. ``c`` must not be larger.
    """
    channels = channels.expand(-1, call.heads, -1, -1)
    if not isinstance(call, FusedCall):
        weights = call.weights()
        return weights.transpose(-2, -1) @ channels.to(weights.dtype)
    if call.pairs.rows_with_keys(call.device) is not None:
        # Such a row has no weights, but the kernels give it some, or nan.
        return _tiled(call, channels)
    with torch.enable_grad():
        value = torch.zeros_like(widened(call.value)).requires_grad_()
        output = call.attend(value)
    width = channels.shape[-1]
    gradient = torch.zeros_like(output)
    gradient[..., :width] = channels
    (result,) = torch.autograd.grad(output, value, gradient)
    return result[..., :width]


def _tiled(call: FusedCall, channels: Tensor) -> Tensor:
    total: Tensor | None = None
    for rows in tiles(call):
        weights = call.weights(rows)
        part = weights.transpose(-2, -1) @ channels[:, :, rows].to(weights.dtype)
        total = part if total is None else total + part
    assert total is not None
    return total
