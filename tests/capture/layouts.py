"""Attention written out in every layout, and its truth from autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CHANNELS = 2
WIDTH = 3
CLASSES = 3


class Sizes(NamedTuple):
    """Of one attention call."""

    batch: int
    heads: int
    queries: int
    keys: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


# (weights in the order of `sizes`, values) -> context, both from (batch, heads, ...).
Attend = Callable[["Attention", Tensor, Tensor, Tensor], Tensor]


class Attention(nn.Module):
    """Attends from learned queries, shifted by the mean of the example, to its tokens.

    ``attend`` gets itself, queries, keys and values, all of shape (batch, heads,
    length, channels), and returns the context in any shape with the batch first. It
    calls :meth:`softmax` once or more.
    """

    def __init__(self, sizes: Sizes, attend: Attend) -> None:
        super().__init__()
        heads = sizes.heads
        self.sizes = sizes
        self.table = nn.Parameter(torch.randn(heads, sizes.queries, CHANNELS))
        self.query, self.key, self.value = (
            nn.Linear(WIDTH, heads * CHANNELS) for _ in range(3)
        )
        self.out = nn.LazyLinear(CLASSES)
        self.attend = attend
        self.retained: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []

    def softmax(
        self, scores: Tensor, dim: int, canonical: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Keeps the weights, for autograd, and what brings them into (batch, heads,
        queries, keys)."""
        weights = scores.softmax(dim)
        self.retained.append((weights, canonical))
        return weights

    def forward(self, x: Tensor) -> Tensor:
        self.retained.clear()
        heads = self.sizes.heads
        key, value = (
            f(x).unflatten(-1, (heads, CHANNELS)).transpose(1, 2)
            for f in (self.key, self.value)
        )
        shift = self.query(x.mean(1)).unflatten(-1, (heads, 1, CHANNELS))
        context = self.attend(self, self.table + shift, key, value)
        return self.out(context.flatten(1).tanh())


def attention(sizes: Sizes, attend: Attend) -> tuple[Attention, Tensor]:
    """A model in float64, and examples for it."""
    model = Attention(sizes, attend).double().eval()
    x = torch.randn(sizes.batch, sizes.keys, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        model(x)  # gives the lazy layer its size
    return model, x


class Truth(NamedTuple):
    """Of one softmax, (batch, heads, queries, keys) each."""

    weights: Tensor
    gradient: Tensor


def truth(model: nn.Module, x: Tensor, target: int = 0) -> list[Truth]:
    """What autograd says of the retained weights."""
    score = model(x)[:, target].sum()
    retained = [each for m in model.modules() for each in getattr(m, "retained", ())]
    gradients = torch.autograd.grad(score, [weights for weights, _ in retained])
    return [
        Truth(canonical(weights.detach()), canonical(gradient))
        for (weights, canonical), gradient in zip(retained, gradients, strict=True)
    ]


class _Seeing(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def skip_if_indexing_is_unseen() -> None:
    """Torch 2.3 does not show ``tensor[0]`` and ``tensor[0] = x`` to function modes."""
    tensor = torch.zeros(2, 2)
    with _Seeing() as seeing:
        tensor[0] = tensor[1]
    if "__setitem__" not in seeing.names:
        pytest.skip("torch 2.3 does not show indexing")
