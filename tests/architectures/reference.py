"""The truth for whole models: materialised attention weights and plain autograd.

Two ways, both without the package under test:

* ``attend`` is an attention function of our own under transformers' attention
  interface. It writes the attention out in the model's dtype and keeps the weights.
* ``returned_weights`` keeps the weights that an eager model hands out next to its
  attention output; they are what multiplies the values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NAME = "materialised"


@dataclass
class Pairs:
    """One attention call: weights on the graph, and which pairs its mask allows."""

    module: nn.Module
    weights: Tensor
    allowed: Tensor
    gradient: Tensor | None = None

    def scores(self, multiply: bool, center: bool) -> Tensor:
        """``(batch, heads, queries, keys)`` from the definitions."""
        A, G = self.weights.detach(), self.gradient
        assert G is not None
        result = G - (A * G).sum(-1, keepdim=True) if center else G
        result = result * A if multiply else result
        return torch.where(self.allowed, result, torch.zeros((), dtype=result.dtype))


_kept: list[Pairs] = []


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """An attention function for transformers' ``AttentionInterface``."""
    heads = query.shape[1]
    group = torch.arange(heads) // (heads // key.shape[1])
    key, value = key[:, group], value[:, group]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * scale
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    if position_bias is not None:
        scores = scores + position_bias
    allowed = torch.ones_like(scores, dtype=torch.bool)
    if attention_mask is not None:
        assert attention_mask.is_floating_point()
        allowed = allowed & (attention_mask == 0)
    exponentials = scores.masked_fill(~allowed, -torch.inf).exp()
    total = exponentials.sum(-1, keepdim=True)
    if s_aux is not None:
        total = total + s_aux.exp().view(1, -1, 1, 1)
    # A query that may see nothing gets nothing, as from a fused kernel.
    weights = exponentials / total.masked_fill(total == 0, 1)
    _kept.append(Pairs(module, weights, allowed))
    output = torch.einsum("bhqk,bhkd->bqhd", weights, value)
    return output.contiguous(), weights


def register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)


def materialised(
    model: nn.Module, score: Callable[[], Tensor]
) -> dict[str, list[Pairs]]:
    """The calls of each module, by its name, where the model uses ``attend``."""
    _kept.clear()
    total = score().sum()
    calls = list(_kept)
    _kept.clear()
    return _with_gradients(model, total, calls)


def returned_weights(
    model: nn.Module,
    names: list[str],
    score: Callable[[], Tensor],
    allowed: dict[str, list[Tensor]],
) -> dict[str, list[Pairs]]:
    """The same from the weights that attention modules return (eager attention).

    Args:
        model: the model.
        names: the names of its attention modules.
        score: runs the model, with ``output_attentions=True``.
        allowed: the allowed pairs of the calls of each module.
    """
    calls: list[Pairs] = []

    with contextlib.ExitStack() as hooks:
        for name in names:
            pairs = iter(allowed[name])

            def keep(
                module: nn.Module, _: Any, output: Any, pairs: Any = pairs
            ) -> None:
                maps = [t for t in output if isinstance(t, Tensor) and t.dim() == 4]
                calls.append(Pairs(module, maps[-1], next(pairs)))

            handle = model.get_submodule(name).register_forward_hook(keep)
            hooks.callback(handle.remove)
        total = score().sum()
    return _with_gradients(model, total, calls)


def _with_gradients(
    model: nn.Module, total: Tensor, calls: list[Pairs]
) -> dict[str, list[Pairs]]:
    gradients = torch.autograd.grad(total, [call.weights for call in calls])
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, list[Pairs]] = {}
    for call, gradient in zip(calls, gradients, strict=True):
        call.gradient = gradient
        found.setdefault(names[call.module], []).append(call)
    return found
