"""Attention that cannot be followed is reported, and what is no attention is not."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    LayerAttentionGradient,
    find_attention_layers,
)
from tests.capture.forms import LOST, same, scores
from tests.capture.layouts import (
    CLASSES,
    WIDTH,
    Attention,
    Sizes,
    attention,
    skip_if_indexing_is_unseen,
    truth,
)

SIZES = Sizes(2, 2, 3, 3)


class AfterAttention(nn.Module):
    """Plain attention beside another module."""

    def __init__(self, plain: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.plain, self.other = plain, other

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x) + self.other(x)


def plain(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return m.softmax(scores(q, k), -1, same) @ v


@pytest.mark.parametrize("name", LOST)
def test_lost_attention_is_reported(name: str) -> None:
    if name == "setitem":
        skip_if_indexing_is_unseen()
    seen, x = attention(SIZES, plain)
    lost, _ = attention(SIZES, LOST[name])
    model = AfterAttention(seen, lost)
    layers = find_attention_layers(model, x)
    assert [info.name for info in layers] == ["plain"]
    assert [layer for layer, _ in layers.lost] == ["other"]
    assert str(layers).splitlines()[-1].startswith("not followed: other, after '")
    with pytest.warns(UserWarning, match=r"cannot be followed.*'other'"):
        AttentionGradient(model).attribute(x, target=0)
    with pytest.raises(ValueError, match=r"No attention was found.*cannot be followed"):
        AttentionGradient(lost).attribute(x, target=0)


def differential(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    one = m.softmax(scores(q, k), -1, same)
    two = m.softmax(scores(q, k) * 2, -1, same)
    return (one - 0.5 * two) @ v


def summed(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    one = m.softmax(scores(q, k), -1, same)
    return (one + m.softmax(-scores(q, k), -1, same)) @ v


@pytest.mark.parametrize("form", [differential, summed], ids=lambda f: f.__name__)
def test_two_softmaxes_in_one_product(form) -> None:
    for sizes in (Sizes(2, 3, 4, 5), SIZES, Sizes(2, 2, 2, 2), Sizes(1, 2, 3, 3)):
        model, x = attention(sizes, form)
        expected = sum(layer.gradient.sum((1, 2)) for layer in truth(model, x))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = AttentionGradient(model).attribute(x, target=0)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# -- softmaxes that are no attention ---------------------------------------------------


class Other(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, CLASSES)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, CLASSES) for _ in range(3))
        self.table = nn.Parameter(torch.randn(CLASSES, CLASSES))


class Classifier(Other):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.mean(1)).softmax(-1)


class Temperature(Other):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.out(x.mean(1))
        p = (logits / 2).softmax(-1)
        confidence = p.max(-1).values
        return logits * confidence[:, None]


class Entropy(Other):
    def forward(self, x: Tensor) -> Tensor:
        logits = self.out(x.mean(1))
        p = logits.softmax(-1)
        return logits - (p * (p + 1e-9).log()).sum(-1, keepdim=True)


class Codebook(Other):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.mean(1)).softmax(-1) @ self.table


class SoftMixture(Other):
    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)
        said = torch.stack([expert(x) for expert in self.experts], dim=1)
        return (self.out(x).softmax(-1).unsqueeze(-1) * said).sum(1)


class LoopedMixture(Other):
    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)
        gate = self.out(x).softmax(-1)
        return sum(gate[:, i, None] * e(x) for i, e in enumerate(self.experts))


class TopMixture(Other):
    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)
        gate, chosen = self.out(x).softmax(-1).topk(2, dim=-1)
        gate = gate / gate.sum(-1, keepdim=True)
        said = torch.stack([expert(x) for expert in self.experts], dim=1)
        index = chosen[..., None].expand(-1, -1, CLASSES)
        return (gate[..., None] * said.gather(1, index)).sum(1)


class TopLogits(Other):
    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)
        best, chosen = self.out(x).topk(2, dim=-1)
        gate = best.softmax(-1)
        result = torch.zeros(len(x), CLASSES, dtype=x.dtype)
        for i, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == i)
            said = gate[rows, place, None] * expert(x[rows])
            result = result.index_add(0, rows, said)
        return result


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class MatrixRouter(TopMixture):
    """Its router is a product with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.out = Product()


@pytest.mark.parametrize(
    "kind",
    [
        Classifier,
        Temperature,
        Entropy,
        Codebook,
        SoftMixture,
        LoopedMixture,
        TopMixture,
        TopLogits,
        MatrixRouter,
    ],
)
def test_other_softmaxes_are_not_reported(kind: type[Other]) -> None:
    seen, x = attention(SIZES, plain)
    model = AfterAttention(seen, kind().double())
    layers = find_attention_layers(model, x)
    assert [info.name for info in layers] == ["plain"]
    assert layers.lost == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AttentionGradient(model).attribute(x, target=0)


# -- keys that are not the tokens ------------------------------------------------------


class Keys(nn.Module):
    """Self-attention whose keys are made of the tokens in some way."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.kind in ("windows", "blocks"):
            q, k, v = (t.reshape(-1, 2, WIDTH) for t in (q, k, v))
        elif self.kind == "windows beside the batch":
            q, k, v = (t.unflatten(1, (-1, 2)) for t in (q, k, v))
        elif self.kind == "channels":
            q, k, v = (t.mT.reshape(-1, length, 1) for t in (q, k, v))
        elif self.kind == "pooled":
            k, v = (F.avg_pool1d(t.mT, 2).mT for t in (k, v))
        elif self.kind == "compressed":
            mix = torch.linspace(-1, 1, length * 2, dtype=x.dtype).view(2, length)
            k, v = mix @ k, mix @ v
        elif self.kind == "shifted":
            k, v = k.roll(1, 1), v.roll(1, 1)
        context = (q @ k.mT).softmax(-1) @ v
        return self.out(context.reshape(batch, -1, WIDTH).mean(1))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("windows", "windows, blocks or channels"),
        ("windows beside the batch", "windows, blocks or channels"),
        ("pooled", "pooled, compressed or shifted"),
        ("compressed", "pooled, compressed or shifted"),
        ("shifted", "pooled, compressed or shifted"),
    ],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_keys_that_are_no_tokens(kind: str, message: str, batch: int) -> None:
    """No score for each token, and maps all the same."""
    embedded = nn.Sequential(nn.Embedding(10, WIDTH), Keys(kind)).double().eval()
    x = torch.randint(1, 10, (batch, 4))
    with pytest.raises(ValueError, match=message):
        AttentionGradient(embedded).attribute(x, target=0)
    maps = LayerAttentionGradient(embedded, embedded[1]).attribute(x, target=0)
    assert maps.shape[0] == batch
    assert bool(maps.abs().sum() > 0)
