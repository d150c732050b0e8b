"""Attention in every layout: exact, in the layout (batch, heads, queries, keys)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    AttentionWeights,
    IntegratedAttentionGradient,
    LayerAttentionGradient,
)
from tests.capture.forms import EXACT, scores
from tests.capture.layouts import (
    CHANNELS,
    WIDTH,
    Attend,
    Attention,
    Sizes,
    attention,
    skip_if_indexing_is_unseen,
    truth,
)

ORDERS = ["".join(order) for order in itertools.permutations("bhqk")]
SIZES = [
    Sizes(2, 3, 4, 5),
    Sizes(2, 2, 3, 3),
    Sizes(2, 3, 2, 3),
    Sizes(2, 3, 3, 2),
    Sizes(2, 2, 2, 2),
    Sizes(3, 3, 3, 3),
    Sizes(1, 2, 3, 4),
    Sizes(1, 2, 2, 2),
    Sizes(3, 1, 3, 3),
    Sizes(2, 2, 1, 3),
    Sizes(3, 2, 2, 1),
    Sizes(1, 1, 1, 1),
]
close = torch.testing.assert_close


def to_canonical(order: str) -> Callable[[Tensor], Tensor]:
    return lambda t: t.permute([order.index(c) for c in "bhqk"])


# How weights of some order weigh values (batch, heads, keys, channels).
Weigh = Callable[[str, Tensor, Tensor], Tensor]


def einsum(order: str, w: Tensor, v: Tensor) -> Tensor:
    return torch.einsum(f"{order},bhkd->bqhd", w, v)


def einsum_values_first(order: str, w: Tensor, v: Tensor) -> Tensor:
    return torch.einsum(f"bhkd,{order}->bhqd", v, w)


def matmul(order: str, w: Tensor, v: Tensor) -> Tensor:
    return to_canonical(order)(w) @ v


def matmul_values_first(order: str, w: Tensor, v: Tensor) -> Tensor:
    return v.mT @ to_canonical(order)(w).mT


def bmm(order: str, w: Tensor, v: Tensor) -> Tensor:
    w = to_canonical(order)(w)
    return torch.bmm(w.flatten(0, 1), v.flatten(0, 1)).view(*w.shape[:3], -1)


def bmm_heads_first(order: str, w: Tensor, v: Tensor) -> Tensor:
    w, v = to_canonical(order)(w).transpose(0, 1), v.transpose(0, 1)
    context = torch.bmm(w.flatten(0, 1), v.flatten(0, 1))
    return context.view(*w.shape[:3], -1).transpose(0, 1)


def multiply_and_sum(order: str, w: Tensor, v: Tensor) -> Tensor:
    v = v.unsqueeze(2).permute(*("bhqk".index(c) for c in order), 4)
    context = (w.unsqueeze(-1) * v).sum(order.index("k"))
    left = order.replace("k", "")
    return context.permute(*(left.index(c) for c in "bhq"), 3)


WEIGH = [
    einsum,
    einsum_values_first,
    matmul,
    matmul_values_first,
    bmm,
    bmm_heads_first,
    multiply_and_sum,
]


def in_order(order: str, weigh: Weigh) -> Attend:
    def attend(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ordered = scores(q, k).permute(*("bhqk".index(c) for c in order))
        w = m.softmax(ordered, order.index("k"), to_canonical(order))
        return weigh(order, w, v)

    return attend


def check(attend: Attend, sizes: Sizes) -> None:
    model, x = attention(sizes, attend)
    (expected,) = truth(model, x)
    maps = LayerAttentionGradient(model, model).attribute(x, target=0)
    close(maps, expected.gradient, rtol=1e-9, atol=1e-9)
    summed = AttentionGradient(model).attribute(x, target=0)
    close(summed, expected.gradient.sum((1, 2)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weigh", WEIGH, ids=lambda f: f.__name__)
@pytest.mark.parametrize("order", ORDERS)
def test_every_order(order: str, weigh: Weigh) -> None:
    place = ORDERS.index(order) + WEIGH.index(weigh)
    # All equal for each of them, and two more in turn.
    for sizes in (SIZES[4], SIZES[place % 12], SIZES[(place + 5) % 12]):
        check(in_order(order, weigh), sizes)


@given(
    order=st.sampled_from(ORDERS),
    weigh=st.sampled_from(WEIGH),
    sizes=st.builds(Sizes, *[st.integers(1, 4)] * 4),
)
@settings(max_examples=100)
def test_any_sizes(order: str, weigh: Weigh, sizes: Sizes) -> None:
    check(in_order(order, weigh), sizes)


@pytest.mark.parametrize("name", EXACT)
def test_every_way_of_writing(name: str) -> None:
    if name in ("heads_loop_dimless", "examples_loop"):
        skip_if_indexing_is_unseen()
    for sizes in SIZES:
        check(EXACT[name], sizes)


@given(data=st.data(), sizes=st.builds(Sizes, *[st.integers(1, 3)] * 4))
@settings(max_examples=100)
def test_any_moves_between_softmax_and_values(data: st.DataObject, sizes: Sizes):
    """Dimensions are permuted, merged, and taken apart again."""
    moves = data.draw(
        st.lists(st.tuples(st.permutations(range(4)), st.integers(0, 2)), max_size=3)
    )

    def attend(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        w = m.softmax(scores(q, k), -1, lambda t: t)
        names = "bhqk"
        for order, at in moves:
            w = w.permute(*order)
            names = "".join(names[i] for i in order)
            if "k" not in names[at : at + 2]:
                pair = w.shape[at : at + 2]
                w = w.flatten(at, at + 1).contiguous().unflatten(at, pair)
        return torch.einsum(f"{names},bhkd->bqhd", w, v)

    check(attend, sizes)


# -- the options, and the other classes -----------------------------------------------


@pytest.mark.parametrize("order", ["bhqk", "hbqk", "qkbh", "bqhk", "kqhb"])
@pytest.mark.parametrize("weigh", [einsum, matmul], ids=lambda f: f.__name__)
def test_rows_heads_and_weights(order: str, weigh: Weigh) -> None:
    for sizes in (Sizes(2, 3, 4, 5), Sizes(2, 2, 2, 2), Sizes(1, 2, 3, 3)):
        model, x = attention(sizes, in_order(order, weigh))
        (expected,) = truth(model, x)
        gradient = expected.gradient
        row = AttentionGradient(model).attribute(x, target=0, query=-1)
        close(row, gradient[:, :, -1].sum(1), rtol=1e-9, atol=1e-9)
        head = AttentionGradient(model, heads=[1]).attribute(x, target=0)
        close(head, gradient[:, 1].sum(1), rtol=1e-9, atol=1e-9)
        by_head = LayerAttentionGradient(model, model).attribute(
            x, target=0, reduce="head"
        )
        close(by_head, gradient.sum((2, 3)), rtol=1e-9, atol=1e-9)
        weights = AttentionWeights(model).attribute(x)
        close(weights, expected.weights.sum(2).mean(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS[::5])
def test_steps_that_make_the_batch_as_long_as_the_text(order: str) -> None:
    """Four steps of two examples, eight tokens and heads: all sizes are alike."""
    sizes = Sizes(2, 8, 8, 8)
    model, x = attention(sizes, in_order(order, einsum))
    integrated = IntegratedAttentionGradient(model)
    four, _ = _with_delta(integrated, x, 4)
    one_by_one = torch.cat([_with_delta(integrated, e[None], 4)[0] for e in x])
    close(four, one_by_one, rtol=1e-9, atol=1e-9)
    _, delta = _with_delta(integrated, x, 50)
    assert float(delta.abs().max()) < 1e-6


def _with_delta(
    integrated: IntegratedAttentionGradient, x: Tensor, n_steps: int
) -> tuple[Tensor, Tensor]:
    found = integrated.attribute(
        x, target=0, n_steps=n_steps, return_convergence_delta=True
    )
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("order", ORDERS[::3])
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[4], SIZES[5]], ids=str)
def test_examples_are_independent(order: str, sizes: Sizes) -> None:
    model, x = attention(sizes, in_order(order, einsum))
    other = x.clone()
    other[1] = torch.randn_like(other[1])
    one, two = (
        AttentionGradient(model).attribute(each, target=0) for each in (x, other)
    )
    close(one[0], two[0], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(one[1], two[1])


# -- queries that are tokens ----------------------------------------------------------


class SelfAttention(nn.Module):
    """Multi-query attention: all heads share keys and values, so that only what
    depends on which token tells queries from heads."""

    def __init__(self, heads: int, order: str, residual: bool) -> None:
        super().__init__()
        self.heads, self.order, self.residual = heads, order, residual
        self.query = nn.Linear(WIDTH, heads * CHANNELS)
        self.key, self.value = nn.Linear(WIDTH, CHANNELS), nn.Linear(WIDTH, CHANNELS)
        self.out = nn.Linear(heads * CHANNELS, WIDTH)
        self.retained: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = []

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).unflatten(-1, (self.heads, CHANNELS))
        raw = torch.einsum(f"bqhd,bkd->{self.order}", q, self.key(x))
        w = raw.softmax(self.order.index("k"))
        self.retained = [(w, to_canonical(self.order))]
        context = torch.einsum(f"{self.order},bkd->bqhd", w, self.value(x))
        out = self.out(context.flatten(2))
        return x + out if self.residual else out


class Stack(nn.Module):
    """Two layers, with the batch first or second."""

    def __init__(self, layers: list[nn.Module], time_first: bool) -> None:
        super().__init__()
        self.layers, self.time_first = nn.ModuleList(layers), time_first
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.time_first else x
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(0 if self.time_first else 1))


def check_stack(model: Stack, x: Tensor) -> None:
    expected = truth(model, x)
    found = LayerAttentionGradient(model, list(model.layers)).attribute(x, target=0)
    for maps, layer in zip(found, expected, strict=True):
        close(maps, layer.gradient, rtol=1e-9, atol=1e-9)
    summed = AttentionGradient(model).attribute(x, target=0)
    close(
        summed,
        sum(layer.gradient.sum((1, 2)) for layer in expected),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("order", ORDERS[::4])
def test_heads_that_cannot_be_told_from_queries(order: str) -> None:
    """Without a residual path nothing says which token a row of layer 2 belongs to."""
    layers = [SelfAttention(3, order, False) for _ in range(2)]
    model = Stack(layers, time_first=False).double().eval()
    x = torch.randn(2, 4, WIDTH, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"layers\.1.* cannot be told into heads"):
        AttentionGradient(model).attribute(x, target=0)


@pytest.mark.parametrize("order", ORDERS[::4])
def test_stacks_with_shared_values(order: str) -> None:
    for batch, heads, tokens in ((2, 3, 4), (2, 2, 2), (3, 3, 3), (1, 2, 3), (1, 2, 2)):
        layers = [SelfAttention(heads, order, True) for _ in range(2)]
        model = Stack(layers, time_first=False).double().eval()
        check_stack(model, torch.randn(batch, tokens, WIDTH, dtype=torch.float64))


class TimeFirst(SelfAttention):
    """Works on (time, batch, features)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


@pytest.mark.parametrize("order", ["qbhk", "qkbh", "hbqk", "bhqk"])
def test_time_first(order: str) -> None:
    for batch, heads, tokens in ((2, 3, 4), (2, 2, 2), (3, 3, 3), (1, 2, 2)):
        layers = [TimeFirst(heads, order, True) for _ in range(2)]
        model = Stack(layers, time_first=True).double().eval()
        check_stack(model, torch.randn(batch, tokens, WIDTH, dtype=torch.float64))


@pytest.mark.parametrize("queries_first", [True, False])
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[4], SIZES[6]], ids=str)
def test_heads_folded_into_queries(queries_first: bool, sizes: Sizes) -> None:
    """``(batch, queries * heads, keys)`` with values that all heads share: the sum over
    both is exact, and the maps come as one head."""
    heads, queries = sizes.heads, sizes.queries

    def attend(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q.transpose(1, 2) if queries_first else q
        folded = q.reshape(len(q), queries * heads, CHANNELS)
        w = m.softmax(folded @ k[:, 0].mT, -1, lambda t: t.unsqueeze(1))
        return w @ v[:, 0]

    check(attend, sizes)


def averaged(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return m.softmax(scores(q, k), -1, lambda t: t).mean(1) @ v.mean(1)


def summed_in_an_einsum(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, lambda t: t)
    return torch.einsum("bhqk,bkd->bqd", w, v[:, 0])


def mixed(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Talking heads."""
    w = m.softmax(scores(q, k), -1, lambda t: t)
    mixture = torch.linspace(-1, 1, w.shape[1] ** 2, dtype=w.dtype)
    return torch.einsum("bhqk,hg->bgqk", w, mixture.view(w.shape[1], -1)) @ v


@pytest.mark.parametrize(
    "form", [averaged, summed_in_an_einsum, mixed], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("sizes", [SIZES[0], SIZES[4], SIZES[6], SIZES[8]], ids=str)
def test_heads_mixed_before_values(form: Attend, sizes: Sizes) -> None:
    check(form, sizes)


def every_other_key(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, lambda t: t)
    return w[..., ::2] @ v[:, :, ::2]


def test_keys_in_steps() -> None:
    """The keys between them weigh nothing, and keep their place."""
    model, x = attention(Sizes(2, 3, 4, 5), every_other_key)
    (expected,) = truth(model, x)
    maps = LayerAttentionGradient(model, model).attribute(x, target=0)
    close(maps, expected.gradient, rtol=1e-9, atol=1e-9)
    assert not maps[..., 1::2].any()


def test_one_row_at_a_time() -> None:
    """Queries in a batch dimension of matmul: their rows follow the tokens."""

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
            self.kept: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (
                f(x).unflatten(-1, (2, 4)).transpose(1, 2)
                for f in (self.q, self.k, self.v)
            )
            weights = (q @ k.mT).softmax(-1)
            self.kept.append(weights)
            return (weights.unsqueeze(-2) @ v.unsqueeze(2)).tanh().sum((1, 2, 3, 4))

    model, x = Rows().double(), torch.randn(3, 5, 8, dtype=torch.float64)
    score = model(x).sum()
    (truth,) = torch.autograd.grad(score, model.kept)
    found = LayerAttentionGradient(model, model).attribute(x)
    torch.testing.assert_close(found, truth)
