"""What else slopes between two runs were tried with, on MiniLM.

Both runs go through the model as the halves of one batch. ``attention`` says what
becomes of the change of the attention weights: nothing (``held``), a score of the key
(``key``), or a change of queries and keys (``through``), by their derivatives in both
runs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks.search.passes import log_odds
from benchmarks.search.subjects import Batch, Subject
from captum_attngrad.metrics.functional import top_token_masks

_NEAR = 1e-3  # closer than this, the derivative halfway takes the slope's place


class _Slopes(TorchFunctionMode):
    """Gives the first half of a batch the slopes to the second half."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.attention = attention
        # Of each call: the mean values, and two copies whose gradients are A^T dO.
        self.values: list[tuple[Tensor, Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            if func is F.layer_norm:
                slanted = _layer_norm(*args, **kwargs)
            elif getattr(func, "__name__", "") in ("gelu", "tanh"):
                slanted = _unary(func, *args, **kwargs)
            elif func is F.scaled_dot_product_attention:
                slanted = self._attend(*args, **kwargs)
            else:
                return func(*args, **kwargs)
            true, other = func(*args, **kwargs).detach().chunk(2)
            return torch.cat([slanted + (true - slanted).detach(), other])

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **options: Any
    ) -> Tensor:
        mask = options.pop("attn_mask", None)
        masks = (mask, mask)
        if mask is not None and len(mask) > 1:
            masks = mask.chunk(2)
        (q1, q0), (k1, k0), (v1, v0) = (t.chunk(2) for t in (query, key, value))

        def attend(q: Tensor, k: Tensor, v: Tensor, run: int) -> Tensor:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=masks[run], **options
            )

        ends = (q1.detach(), k1.detach(), 0), (q0.detach(), k0.detach(), 1)
        result = sum(attend(q, k, v1, run) for q, k, run in ends) / 2
        mean = ((v1 + v0) / 2).detach()
        if self.attention == "key":
            copies = mean.clone().requires_grad_(), mean.clone().requires_grad_()
            self.values.append((mean, *copies))
            result = result + attend(*ends[0][:2], copies[0], 0)
            result = result - attend(*ends[1][:2], copies[1], 1)
        elif self.attention == "through":
            # At the second run's queries and keys, with the first run's gradients.
            q, k = q0.detach() + q1 - q1.detach(), k0.detach() + k1 - k1.detach()
            result = result + (attend(q1, k1, mean, 0) + attend(q, k, mean, 1)) / 2
        return result


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    variance = centered.pow(2).mean(-1, keepdim=True) + eps
    (c1, c0), (u1, u0) = centered.chunk(2), variance.detach().chunk(2)
    r1, r0 = u1.rsqrt(), u0.rsqrt()
    close = (u1 - u0).abs() <= 1e-6 * u0
    slope = torch.where(
        close, -0.5 * r0**3, (r1 - r0) / (u1 - u0).masked_fill(close, 1)
    )
    change = (c1 * (c1 + c0).detach()).mean(-1, keepdim=True)
    return (c1 * (r1 + r0) / 2 + ((c1 + c0) / 2).detach() * slope * change) * weight


def _unary(func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    x1, x0 = x.chunk(2)
    y1, y0 = func(x.detach(), *args, **kwargs).chunk(2)
    change = (x1 - x0).detach()
    close = change.abs() <= _NEAR
    with torch.enable_grad():
        halfway = ((x1 + x0) / 2).detach().requires_grad_()
        (derivative,) = torch.autograd.grad(
            func(halfway, *args, **kwargs).sum(), halfway
        )
    slope = torch.where(close, derivative, (y1 - y0) / change.masked_fill(close, 1))
    return x1 * slope


def between(
    subject: Subject, batch: Batch, one: Tensor, zero: Tensor, attention: str = "held"
) -> Tensor:
    """Scores of what changes from the word vectors ``zero`` to ``one``."""
    vectors = one.detach().requires_grad_()
    mode = _Slopes(attention)
    with torch.enable_grad(), mode:
        output = subject.model(
            inputs_embeds=torch.cat([vectors, zero.detach()]),
            attention_mask=batch.mask.repeat(2, 1).long(),
        )
        score = log_odds(output.logits.chunk(2)[0], batch.target).sum()
    copies = [copy for _, *both in mode.values for copy in both]
    gradient, *weighed = torch.autograd.grad(score, [vectors, *copies])
    scores = (gradient * (one - zero)).sum(-1)
    for i, (mean, *_) in enumerate(mode.values):
        change = weighed[2 * i] + weighed[2 * i + 1]  # the second counts negative
        scores = scores + (mean * change).sum(-1).sum(1)
    return scores


def _with_only(keep: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    text, masked = ends
    return torch.where(keep.unsqueeze(-1), text, masked)


def with_and_without(
    subject: Subject, batch: Batch, ends: tuple[Tensor, Tensor]
) -> Tensor:
    """Three pairs: text and masked, text and text without its top fifth, and that top
    fifth alone and masked."""
    text, masked = ends
    scores = between(subject, batch, text, masked)
    top = top_token_masks(scores, batch.attributable, [0.2])[:, 0]
    without = between(subject, batch, text, _with_only(~top, ends))
    return scores + without + between(subject, batch, _with_only(top, ends), masked)


def halves(subject: Subject, batch: Batch, ends: tuple[Tensor, Tensor]) -> Tensor:
    """Three pairs: text and masked, and both with a random half of the text."""
    text, masked = ends
    generator = torch.Generator().manual_seed(batch.rows[0])
    half = _with_only(torch.rand(batch.ids.shape, generator=generator) < 0.5, ends)
    scores = between(subject, batch, text, masked)
    scores = scores + between(subject, batch, text, half)
    return scores + between(subject, batch, half, masked)
