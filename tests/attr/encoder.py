"""An encoder whose way of attending can be exchanged, for the whole family."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests import reference

Attend = Callable[..., Tensor]
WIDTH = 4


def fused(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def written_out(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self, heads: int, attend: Attend) -> None:
        super().__init__()
        self.heads, self.attend = heads, attend
        self.qkv = nn.Linear(WIDTH, 9 * heads)
        self.out = nn.Linear(3 * heads, WIDTH)

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, 3)).permute(2, 0, 3, 1, 4)
        out = self.attend(q, k, v, allowed)
        return self.out(out.transpose(1, 2).flatten(2)).tanh()


class Encoder(nn.Module):
    """Embeddings and a mask of tokens to three logits, read at every position."""

    def __init__(
        self, layers: int, heads: int, attend: Attend = fused, causal: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Attention(heads, attend) for _ in range(layers))
        self.head = nn.Linear(WIDTH, 3)
        self.causal = causal

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        allowed = None
        if tokens is not None:
            allowed = tokens[:, None, None].expand(-1, 1, x.shape[1], -1)
        if self.causal:
            lower = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
            allowed = lower[None, None] if allowed is None else allowed & lower
        for layer in self.layers:
            x = x + layer(x, allowed)
        x = x if tokens is None else x * tokens.unsqueeze(-1)
        return self.head(x.square()).sum(1)

    def attending(self, attend: Attend) -> Encoder:
        for layer in self.layers:
            layer.attend = attend
        return self


@st.composite
def encoders(draw: st.DrawFn) -> tuple[Encoder, Tensor, Tensor | None]:
    """A model in float64, its input and its mask."""
    torch.manual_seed(draw(st.integers(0, 99)))
    attend = draw(st.sampled_from([fused, written_out]))
    layers, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    model = Encoder(layers, heads, attend, causal=draw(st.booleans()))
    model = model.double().eval().requires_grad_(draw(st.booleans()))
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    x = torch.randn(batch, length, WIDTH, dtype=torch.float64)
    tokens = None
    if draw(st.booleans()):
        lengths = torch.tensor([draw(st.integers(1, length)) for _ in range(batch)])
        tokens = torch.arange(length) < lengths[:, None]
    return model, x, tokens


def weights_and_gradients(
    model: Encoder, x: Tensor, tokens: Tensor | None, target: int
) -> list[tuple[Tensor, Tensor]]:
    """Of every layer, ``(batch, heads, queries, keys)``, by autograd on the weights."""
    before = model.layers[0].attend
    attend = reference.MaterialisedAttention()
    score = model.attending(attend)(x, tokens)[:, target]
    model.attending(before)
    gradients = reference.weight_gradients(score, attend.weights)
    return [
        (w.detach(), g.masked_fill(~a, 0))
        for w, g, a in zip(attend.weights, gradients, attend.allowed, strict=True)
    ]


class Sizes(torch.overrides.TorchFunctionMode):
    """Notes the most bytes behind any tensor that a torch function returns."""

    largest = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.untyped_storage().nbytes())
        return result


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
