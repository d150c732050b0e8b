"""Where a model attends while it runs, in one form whatever the operation is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class FusedSite:
    """
    An operation that takes queries, keys and values, and never shows its weights.

    Args:
        index (int): the site's number among those of the forward pass.
        query, key, value (Tensor): ``(*lead, length, channels)``. Those of
            ``scaled_dot_product_attention`` have the same leading dimensions; a kernel
            may have fewer heads for keys and values.
        mask (Tensor, optional): as ``attn_mask`` of ``scaled_dot_product_attention``.
        causal (bool): only keys up to the query's own position are allowed.
        scale (float, optional): of the scores.
        dropout (float): probability that a weight is dropped.
        kernel (Callable, optional): the output for some values, where the operation is
            not ``scaled_dot_product_attention``. Its mask is then unknown.
    """

    index: int
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    causal: bool = False
    scale: float | None = None
    dropout: float = 0.0
    kernel: Callable[[Tensor], Tensor] | None = None

    def attend(self, value: Tensor) -> Tensor:
        """The output for these values."""
        return self._attend(self.key, value)

    def _attend(self, key: Tensor, value: Tensor) -> Tensor:
        if self.kernel is not None:
            return self.kernel(value)
        return F.scaled_dot_product_attention(
            self.query,
            key,
            value,
            attn_mask=self.mask,
            dropout_p=self.dropout,
            is_causal=self.causal,
            scale=self.scale,
        )


def fused_site(
    index: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> FusedSite | None:
    """The site of a call of ``scaled_dot_product_attention``, given its arguments; None
    for nested tensors."""
    if any(t.is_nested for t in (query, key, value)):
        return None
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        # One key and value head per query head, so that each has its own scores.
        groups = query.shape[-3] // key.shape[-3]
        key = key.repeat_interleave(groups, dim=-3)
        value = value.repeat_interleave(groups, dim=-3)
    lead = torch.broadcast_shapes(*(t.shape[:-2] for t in (query, key, value)))
    query, key, value = (
        t if t.shape[:-2] == lead else t.expand(*lead, *t.shape[-2:])
        for t in (query, key, value)
    )
    return FusedSite(index, query, key, value, attn_mask, is_causal, scale, dropout_p)


@dataclass(frozen=True)
class SoftmaxSite:
    """
    A softmax that may turn out to give attention weights.

    Args:
        index (int): the site's number among those of the forward pass.
        scores, weights (Tensor): its argument and its result.
        dim (int): its dimension.
    """

    index: int
    scores: Tensor
    weights: Tensor
    dim: int
