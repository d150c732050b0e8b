"""Fused attention whose backward pass leaves out the queries that nothing used.

A classifier reads one position of its last layer, and a language model that predicts
the next token reads the last: the gradient of that layer's attention output is 0 in all
other rows. The kernels' backward passes go through them all the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from captum_attngrad.capture._sites import FusedSite

# Attention on fewer queries is too cheap to look for rows.
_MIN_QUERIES = 256
# The rows that are used are computed once more: only where they are few.
_MOST_USED = 1 / 8


def attend_skipping_unused(site: FusedSite, value: Tensor) -> Tensor:
    """The output of ``scaled_dot_product_attention`` without dropout, with a backward
    pass that can run only once, for one cotangent, and cannot be differentiated."""
    query, key, mask = site.query, site.key, site.mask
    long = query.shape[-2] >= _MIN_QUERIES and torch.is_grad_enabled()
    fixed_mask = mask is None or not mask.requires_grad
    if long and fixed_mask and any(t.requires_grad for t in (query, key, value)):
        result: Tensor = _SkipUnused.apply(  # type: ignore[no-untyped-call]
            query, key, value, mask, site.causal, site.scale
        )
        return result
    return site.attend(value)


class _SkipUnused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
        scale: float | None,
    ) -> Tensor:
        # A graph of its own, to be used or not.
        query, key, value = inner = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(
                (query, key, value), ctx.needs_input_grad[:3], strict=True
            )
        ]
        with torch.enable_grad():
            output = scaled_dot_product_attention(
                query, key, value, mask, is_causal=causal, scale=scale
            )
        ctx.inner = (inner, output, mask, causal, scale)
        # A score that cannot be differentiated gives no gradient, which is not 0.
        ctx.set_materialize_grads(False)
        return output.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 6
        (inner, output, mask, causal, scale), ctx.inner = ctx.inner, None
        used = (gradient != 0).any(dim=-1).flatten(0, -2).any(dim=0).nonzero().view(-1)
        if len(used) > _MOST_USED * gradient.shape[-2]:
            found = _gradients(output, inner, gradient)
        else:
            del output  # and the graph that was kept for all rows
            found = _of_rows(used, inner, gradient, mask, causal, scale)
        return (*found, None, None, None)


def _of_rows(
    rows: Tensor,
    inner: list[Tensor],
    gradient: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float | None,
) -> list[Tensor | None]:
    """The gradients, from these query rows alone."""
    query, key, value = inner
    chosen = query.detach()[..., rows, :].requires_grad_(query.requires_grad)
    if mask is not None and mask.dim() > 1 and mask.shape[-2] > 1:
        mask = mask[..., rows, :]
    if causal:
        keys = torch.arange(key.shape[-2], device=rows.device)
        mask = keys <= rows.unsqueeze(-1)
    with torch.enable_grad():
        output = scaled_dot_product_attention(chosen, key, value, mask, scale=scale)
    found = _gradients(output, [chosen, key, value], gradient[..., rows, :])
    if found[0] is not None:
        found[0] = torch.zeros_like(query).index_copy_(-2, rows, found[0])
    return found


def _gradients(
    output: Tensor, inputs: list[Tensor], gradient: Tensor
) -> list[Tensor | None]:
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(output, wanted, gradient))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]
