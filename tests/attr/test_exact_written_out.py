"""Attention written out with a softmax: found, and exact, in the forms people write."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    LayerAttentionGradient,
    find_attention_layers,
)
from tests import reference

OPTIONS = list(itertools.product((False, True), repeat=2))
WIDTH = 4


class WrittenOut(nn.Module):
    """Keys and values from one layer each; the way of attending is given."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.score = nn.Linear(WIDTH, 1)
        self.out = nn.LazyLinear(3)
        self.attend = attend
        self.weights: Tensor | None = None

    def softmax(self, scores: Tensor, dim: int) -> Tensor:
        """Keeps what autograd needs for the truth."""
        self.weights = scores.softmax(dim)
        return self.weights

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attend(self, x).tanh().flatten(1))


# Each returns the context, and leaves the weights in self.weights. `canonical` brings
# them into (batch, heads, queries, keys).


def four_dimensional(self: WrittenOut, x: Tensor) -> Tensor:
    q, k, v = (
        f(x).unflatten(-1, (2, 2)).transpose(1, 2)
        for f in (self.query, self.key, self.value)
    )
    weights = self.softmax(q @ k.transpose(-2, -1), -1)
    return torch.matmul(F.dropout(weights, 0.5, training=False), v)


def folded_heads(self: WrittenOut, x: Tensor) -> Tensor:
    q, k, v = (
        f(x).unflatten(-1, (2, 2)).transpose(1, 2).flatten(0, 1)
        for f in (self.query, self.key, self.value)
    )
    weights = self.softmax(torch.bmm(q, k.mT), 2)
    return torch.bmm(weights, v).unflatten(0, (len(x), 2))


def additive_bmm(self: WrittenOut, x: Tensor) -> Tensor:
    scores = self.score((self.query(x[:, :1]) + self.key(x)).tanh()).squeeze(-1)
    weights = self.softmax(scores, 1)
    return torch.bmm(weights.unsqueeze(1), self.value(x)).squeeze(1)


def additive_product(self: WrittenOut, x: Tensor) -> Tensor:
    weights = self.softmax(self.score(self.key(x).tanh()), 1)  # (batch, keys, 1)
    return (weights * self.value(x)).sum(dim=1)


def product_the_other_way(self: WrittenOut, x: Tensor) -> Tensor:
    weights = self.softmax(self.score(self.key(x).tanh()).squeeze(2), -1)
    return torch.sum(self.value(x) * weights[:, :, None], 1)


def time_major(self: WrittenOut, x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    weights = self.softmax(self.score(self.key(x).tanh()), 0)  # (keys, batch, 1)
    return weights.mul(self.value(x)).sum(0)


def einsum(self: WrittenOut, x: Tensor) -> Tensor:
    scores = torch.einsum("bqd,bkd->bqk", self.query(x), self.key(x))
    return torch.einsum("bqk,bkd->bqd", self.softmax(scores, -1), self.value(x))


def einsum_ellipsis(self: WrittenOut, x: Tensor) -> Tensor:
    scores = torch.einsum("...qd,...kd->...qk", self.query(x), self.key(x))
    weights = self.softmax(scores, -1).float().to(x.dtype)
    return torch.einsum("...kd,...qk->...qd", self.value(x), weights)


def values_first(self: WrittenOut, x: Tensor) -> Tensor:
    scores = self.key(x) @ self.query(x).mT  # (batch, keys, queries)
    return self.value(x).mT @ self.softmax(scores, 1)


def multiplicative_last_state(self: WrittenOut, x: Tensor) -> Tensor:
    scores = torch.matmul(self.key(x), self.query(x[:, -1]).unsqueeze(2)).squeeze(2)
    return torch.matmul(self.softmax(scores, -1).unsqueeze(-2), self.value(x))


def masked_afterwards(self: WrittenOut, x: Tensor) -> Tensor:
    weights = self.softmax(self.query(x) @ self.key(x).mT, -1)
    mask = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril()
    weights = weights * mask
    return (weights / weights.sum(-1, keepdim=True)) @ self.value(x)


def changed_in_place(self: WrittenOut, x: Tensor) -> Tensor:
    weights = self.softmax(self.query(x) @ self.key(x).mT, -1).clone()
    weights.masked_fill_(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), 0)
    return weights @ self.value(x)


def first(t: Tensor) -> Tensor:
    return t[:, None]


FORMS: dict[Callable[..., Tensor], Callable[[Tensor], Tensor]] = {
    four_dimensional: lambda t: t,
    folded_heads: lambda t: t.unflatten(0, (-1, 2)),
    additive_bmm: lambda t: t[:, None, None],
    additive_product: lambda t: t[:, None, None, :, 0],
    product_the_other_way: lambda t: t[:, None, None],
    time_major: lambda t: t[:, :, 0].T[:, None, None],
    einsum: first,
    einsum_ellipsis: first,
    values_first: lambda t: t.mT[:, None],
    multiplicative_last_state: lambda t: t[:, None, None],
    masked_afterwards: first,
    changed_in_place: first,
}


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
@given(
    batch=st.integers(1, 4),
    keys=st.integers(1, 5),
    options=st.sampled_from(OPTIONS),
    frozen=st.booleans(),
)
@settings(max_examples=25)
def test_exact(form, batch, keys, options, frozen) -> None:
    torch.manual_seed(batch + 10 * keys)
    model = WrittenOut(form).double().eval()
    x = torch.randn(batch, keys, WIDTH, dtype=torch.float64)
    score = model(x)[:, 0]
    (gradient,) = torch.autograd.grad(score.sum(), model.weights)
    canonical = FORMS[form]
    weights, gradient = canonical(model.weights.detach()), canonical(gradient)
    everything = torch.ones_like(weights, dtype=torch.bool)
    expected = reference.pair_scores(weights, gradient, everything, *options)

    model.requires_grad_(not frozen)
    choice = dict(zip(("multiply_by_attention", "center"), options, strict=True))
    found, attention = LayerAttentionGradient(model, model, **choice).attribute(
        x, target=0, return_attention=True
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(attention, weights, rtol=1e-9, atol=1e-9)
    summed = AttentionGradient(model, **choice).attribute(x, target=0)
    torch.testing.assert_close(summed, expected.sum((1, 2)), rtol=1e-9, atol=1e-9)


SOFTMAXES = {
    "F.softmax": lambda scores: F.softmax(scores, dim=-1),
    "F.softmax, positional": lambda scores: F.softmax(scores, -1),
    "torch.softmax": lambda scores: torch.softmax(scores, dim=-1),
    "Tensor.softmax": lambda scores: scores.softmax(-1),
    "nn.Softmax": nn.Softmax(dim=-1),
    "in float32, and back": lambda scores: F.softmax(
        scores, dim=-1, dtype=torch.float32
    ).to(scores.dtype),
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_every_way_to_call_softmax(name: str) -> None:
    def attend(self: WrittenOut, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).mT
        return SOFTMAXES[name](scores) @ self.value(x)

    model = WrittenOut(attend).eval()
    (info,) = find_attention_layers(model, torch.randn(2, 3, WIDTH))
    assert (info.kind, info.heads, info.query_length) == ("softmax", 1, 3)


@pytest.mark.parametrize(
    "fill", [-torch.inf, torch.finfo(torch.float32).min, -1e9, -1e4]
)
def test_forbidden_pairs_are_exactly_zero(fill: float) -> None:
    padding = torch.tensor([[True, True, False], [True, True, True]])

    def attend(self: WrittenOut, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).mT
        return scores.masked_fill(~padding[:, None], fill).softmax(-1) @ self.value(x)

    model = WrittenOut(attend).eval()
    x = torch.randn(2, 3, WIDTH)
    model(x)  # gives the lazy layer its size
    scores = AttentionGradient(model).attribute(x, target=1)
    assert scores[0, 2] == 0
    assert scores.count_nonzero() == 5


# -- what is no attention ------------------------------------------------------------


class Classifier(nn.Module):
    """Its output softmax weighs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x).softmax(-1)


class Entropy(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        p = super().forward(x)
        return -(p * p.log()).sum(-1)


class ExpectedRating(Classifier):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ torch.arange(3.0)


class ClassEmbedding(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) @ self.table


class FeatureGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x).softmax(-1) * x


class SoftMixture(nn.Module):
    """Every expert runs; the router weighs what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 3)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, 5) for _ in range(3))

    def weigh(self, x: Tensor) -> tuple[Tensor, Tensor]:
        said = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return self.router(x).softmax(-1), said

    def forward(self, x: Tensor) -> Tensor:
        weights, said = self.weigh(x)
        return (weights.unsqueeze(-1) * said).sum(-2)


class SoftMixtureMatmul(SoftMixture):
    def forward(self, x: Tensor) -> Tensor:
        weights, said = self.weigh(x)
        return (weights.unsqueeze(-2) @ said).squeeze(-2)


class SoftMixtureEinsum(SoftMixture):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ne,nec->nc", *self.weigh(x))


class TopMixture(SoftMixture):
    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        result = torch.zeros(len(x), 5)
        for e, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == e)
            result[rows] += weights[rows, place, None] * expert(x[rows])
        return result


@pytest.mark.parametrize(
    "kind",
    [
        Classifier,
        Entropy,
        ExpectedRating,
        ClassEmbedding,
        FeatureGate,
        SoftMixture,
        SoftMixtureMatmul,
        SoftMixtureEinsum,
        TopMixture,
    ],
)
def test_other_softmaxes_do_not_count(kind: type[nn.Module]) -> None:
    model = kind().eval()
    for trainable in (True, False):
        found = find_attention_layers(
            model.requires_grad_(trainable), torch.randn(6, 4)
        )
        assert not found, found
    assert str(found) == "no attention found"


class LocationAttention(nn.Module):
    """Weights over positions straight from a linear layer (Luong et al. 2015), and
    encoder states stacked in the loop that made them: attention all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(WIDTH, WIDTH)
        self.location = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        state, states = x.new_zeros(len(x), WIDTH), x.new_zeros(len(x), 3, WIDTH)
        for t in range(3):
            state = self.cell(x[:, t], state)
            states = states.clone()
            states[:, t] = state
        weights = F.softmax(self.location(state), dim=1)
        return torch.bmm(weights.unsqueeze(1), states).squeeze(1)


def test_location_attention_counts() -> None:
    (info,) = find_attention_layers(
        LocationAttention().eval(), torch.randn(2, 3, WIDTH)
    )
    assert (info.heads, info.query_length, info.key_length) == (1, 1, 3)
