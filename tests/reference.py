"""The slow truth: attention written from its definition, and scores from theirs.

Everything here keeps the attention weights as a tensor and asks autograd for their
gradient. Nothing is taken from the package.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MaterialisedAttention:
    """``softmax(q k^T scale + bias) v`` with the weights kept, one per call."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.allowed: list[Tensor] = []

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None = None,
        bias: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        key = torch.stack([key[:, h // groups] for h in range(query.shape[1])], 1)
        value = torch.stack([value[:, h // groups] for h in range(query.shape[1])], 1)
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * scale
        if bias is not None:
            scores = scores + bias
        everything = torch.ones_like(scores, dtype=torch.bool)
        allowed = everything if allowed is None else everything & allowed
        scores = scores.masked_fill(~allowed, -torch.inf)
        exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
        weights = exponentials / exponentials.sum(-1, keepdim=True)
        if not weights.requires_grad:
            weights.requires_grad_()
        self.weights.append(weights)
        self.allowed.append(allowed)
        return torch.einsum("bhqk,bhkd->bhqd", weights, value)


def weight_gradients(score: Tensor, weights: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(score.sum(), weights, retain_graph=True))


def pair_scores(
    weights: Tensor, gradient: Tensor, allowed: Tensor, multiply: bool, center: bool
) -> Tensor:
    """Scores of (query, key) pairs from the definitions, row by row."""
    result = torch.zeros_like(gradient)
    for b in range(weights.shape[0]):
        for h in range(weights.shape[1]):
            for q in range(weights.shape[2]):
                a, g = weights[b, h, q].detach(), gradient[b, h, q]
                row = g - torch.dot(a, g) if center else g
                row = row * a if multiply else row
                result[b, h, q] = torch.where(allowed[b, h, q], row, torch.zeros(()))
    return result


def multi_head_attention(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    attn_mask: Tensor | None = None,
) -> tuple[Tensor, MaterialisedAttention]:
    """``nn.MultiheadAttention`` from its documentation, with its own parameters."""
    if not module.batch_first:
        query, key, value = (t.transpose(0, 1) for t in (query, key, value))
    width, heads = module.embed_dim, module.num_heads
    if module.in_proj_weight is not None:
        weights = module.in_proj_weight.split(width)
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    biases = (
        (0, 0, 0) if module.in_proj_bias is None else module.in_proj_bias.split(width)
    )
    q, k, v = (
        t @ w.T + b
        for t, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    batch = q.shape[0]
    if module.bias_k is not None:
        k = torch.cat([k, module.bias_k.expand(batch, 1, width)], 1)
        v = torch.cat([v, module.bias_v.expand(batch, 1, width)], 1)
    if module.add_zero_attn:
        k = torch.cat([k, torch.zeros_like(k[:, :1])], 1)
        v = torch.cat([v, torch.zeros_like(v[:, :1])], 1)
    q, k, v = (
        t.view(batch, -1, heads, width // heads).transpose(1, 2) for t in (q, k, v)
    )
    allowed = torch.ones(batch, heads, q.shape[2], k.shape[2], dtype=torch.bool)
    bias = torch.zeros(batch, heads, q.shape[2], k.shape[2], dtype=q.dtype)
    extra = k.shape[2] - key.shape[1]
    own = slice(None, k.shape[2] - extra)
    if key_padding_mask is not None:
        allowed[..., own] &= ~key_padding_mask[:, None, None]
    if attn_mask is not None:
        if attn_mask.dim() == 3:
            attn_mask = attn_mask.view(batch, heads, *attn_mask.shape[1:])
        if attn_mask.dtype == torch.bool:
            allowed[..., own] &= ~attn_mask
        else:
            bias[..., own] += attn_mask
    attend = MaterialisedAttention()
    output = attend(q, k, v, allowed, bias).transpose(1, 2).reshape(batch, -1, width)
    output = output @ module.out_proj.weight.T
    if module.out_proj.bias is not None:
        output = output + module.out_proj.bias
    return (output if module.batch_first else output.transpose(0, 1)), attend
