"""Bad input: each error says what was given and what to do."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_attngrad import AttentionGradient, LayerAttentionGradient
from tests.attr.models import SelfAttention, classifier, token_ids


def test_no_attention_in_the_layer_names_where_there_is_some() -> None:
    model = classifier()
    ids, _ = token_ids()
    with pytest.raises(
        ValueError, match=r"layer Linear.*found in: layers\.0, layers\.1"
    ):
        AttentionGradient(model, model.feed_forward).attribute(ids, 1)
    with pytest.raises(ValueError, match="No attention was found in the model"):
        AttentionGradient(nn.Linear(3, 2)).attribute(torch.randn(4, 3), 1)
    with pytest.raises(ValueError, match="No attention was found in the layer Linear"):
        AttentionGradient(lambda x: model(x), model.feed_forward).attribute(ids, 1)


def test_a_layer_that_does_not_run() -> None:
    model = classifier()
    ids, _ = token_ids()
    with pytest.raises(ValueError, match="layer SelfAttention was not called"):
        AttentionGradient(model, SelfAttention()).attribute(ids, 1)
    with pytest.raises(ValueError, match="layer Linear was not called"):
        AttentionGradient(model, nn.Linear(8, 8)).attribute(ids, 1)


def test_layer_arguments() -> None:
    model = classifier()
    ids, _ = token_ids()
    with pytest.raises(ValueError, match="layer is None, and forward_func"):
        AttentionGradient(lambda x: model(x))
    with pytest.raises(ValueError, match="empty list"):
        AttentionGradient(model, []).attribute(ids, 1)
    with pytest.raises(TypeError, match=r"got str: 'layers\.0'"):
        AttentionGradient(model, "layers.0").attribute(ids, 1)
    with pytest.raises(ValueError, match=r"2 attention modules: layers\.0, layers\.1"):
        LayerAttentionGradient(model, model).attribute(ids, 1)


class Detached(nn.Module):
    """The first layer does not reach the output by a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = SelfAttention(), SelfAttention()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(x + self.first(x).detach())[:, 0]


def test_weights_that_are_not_on_the_path() -> None:
    model, x = Detached().eval(), torch.randn(2, 3, 8)
    with pytest.raises(RuntimeError, match="not on the path"):
        AttentionGradient(model, model.first).attribute(x, 1)
    with pytest.raises(RuntimeError, match="not on the path"):
        AttentionGradient(model, [model.first, model.second]).attribute(x, 1)
    with pytest.warns(UserWarning, match="'first'; they count as 0"):
        both = AttentionGradient(model).attribute(x, 1)
    second = AttentionGradient(model, model.second).attribute(x, 1)
    torch.testing.assert_close(both, second)

    def lost(x: Tensor) -> Tensor:
        with torch.no_grad():
            return model(x)

    with pytest.raises(RuntimeError, match="not on the path"):
        AttentionGradient(lost, model.second).attribute(x, 1)


class WithDropout(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.module = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "fused":
            p = 0.3 * self.training
            return F.scaled_dot_product_attention(x, x, x, dropout_p=p).sum(1)
        if self.kind == "written out":
            return (self.dropout((x @ x.mT).softmax(-1)) @ x).sum(1)
        return self.module(x, x, x, need_weights=self.kind == "weights")[0].sum(1)


@pytest.mark.parametrize("kind", ["fused", "written out", "module", "weights"])
def test_active_attention_dropout(kind: str) -> None:
    model, x = WithDropout(kind), torch.randn(2, 3, 8)
    with pytest.raises(RuntimeError, match=r"dropout is active.*model\.eval\(\)"):
        AttentionGradient(model).attribute(x, 1)
    scores = AttentionGradient(model.eval()).attribute(x, 1)
    assert bool(scores.isfinite().all())


def test_other_dropout_is_no_obstacle() -> None:
    model = nn.Sequential(SelfAttention(), nn.Dropout(0.1)).train()
    AttentionGradient(lambda x: model(x)[:, 0], model[0]).attribute(
        torch.ones(2, 3, 8), 1
    )
    assert model.training


class CrossAndSelf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = x + self.self_attention(x, x, x)[0]
        return self.cross_attention(x, memory, memory)[0][:, 0]


def test_layers_with_different_keys() -> None:
    model = CrossAndSelf().eval()
    inputs = (torch.randn(2, 3, 8), torch.randn(2, 5, 8))
    message = r"3 keys in 'self_attention'; 5 keys in 'cross_attention'"
    with pytest.raises(ValueError, match=message):
        AttentionGradient(model).attribute(inputs, 1)
    shapes = [
        tuple(t.shape) for t in LayerAttentionGradient(model).attribute(inputs, 1)
    ]
    assert shapes == [(2, 2, 3, 3), (2, 2, 3, 5)]
    (cross,) = AttentionGradient(model, model.cross_attention).attribute(inputs, 1)
    assert cross.shape == (2, 5)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"target is missing: forward_func returned shape \(4, 3\)"),
        (3, r"target 3 is out of range.*0 to 2"),
        (-4, "out of range"),
        ([0, 1, 2, 3], "target 3 is out of range"),
        (torch.tensor([0, 1, 2, 7]), "target 7 is out of range"),
        (torch.tensor(5), "target 5 is out of range"),
        ([0, 1], r"does not fit the output of forward_func, which has shape \(4, 3\)"),
        ((1, 1), "does not fit"),
        ("one", "does not fit"),
    ],
)
def test_bad_targets(target: object, message: str) -> None:
    model = classifier()
    with pytest.raises(ValueError, match=message):
        AttentionGradient(model).attribute(token_ids()[0], target)


def test_a_target_that_leaves_more_than_one_number() -> None:
    model = classifier((3, 2))
    with pytest.raises(ValueError, match="more than one number per example"):
        AttentionGradient(model).attribute(token_ids()[0], 1)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (5, r"query=5 is out of range: layer 'layers\.0' has 5 queries"),
        (-6, "query=-6 is out of range"),
        (torch.tensor([0, 1, 2, 9]), "query=9 is out of range"),
        (torch.tensor([0, 1]), r"shape \(2,\), expected \(4,\)"),
        (torch.tensor([0.0, 1, 2, 3]), "tensor of integers, got torch.float32"),
        ("first", "got str"),
        (True, "got bool"),
    ],
)
def test_bad_queries(query: object, message: str) -> None:
    model = classifier()
    with pytest.raises(ValueError, match=message):
        AttentionGradient(model).attribute(token_ids()[0], 1, query=query)


def test_outputs_that_are_no_tensor() -> None:
    model = classifier()
    method = AttentionGradient(lambda x: {"logits": model(x)}, model.layers)
    with pytest.raises(
        TypeError, match="forward_func returned dict, expected a Tensor"
    ):
        method.attribute(token_ids()[0], 1)


def test_examples_that_are_mixed() -> None:
    model = classifier(embed=False)
    method = AttentionGradient(
        lambda x: model(torch.cat([x, x])).unflatten(0, (2, -1)).sum(0), model.layers
    )
    with pytest.raises(ValueError, match="batch of 8, while inputs hold 4 examples"):
        method.attribute(torch.randn(4, 5, 8, dtype=torch.float64), 1)


def test_scripted_models() -> None:
    class Scriptable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x).sum(1)

    traced = torch.jit.trace(Scriptable(), torch.randn(2, 3, 8))
    with pytest.raises(TypeError, match=r"compiled with torch\.jit"):
        AttentionGradient(traced).attribute(torch.randn(2, 3, 8), 1)


def test_nested_tensors() -> None:
    class Nested(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.nested.nested_tensor([t[None] for t in x])
            return (
                F.scaled_dot_product_attention(x, x, x).to_padded_tensor(0).sum((1, 2))
            )

    with pytest.raises(NotImplementedError, match="nested tensors"):
        AttentionGradient(Nested()).attribute(torch.randn(2, 3, 8), 1)


@pytest.mark.parametrize("backend", [None, SDPBackend.MATH], ids=["default", "math"])
def test_values_changed_in_place_after_the_call(backend: SDPBackend | None) -> None:
    class InPlace(nn.Module):
        def __init__(self, which: str) -> None:
            super().__init__()
            self.which = which

        def forward(self, x: Tensor) -> Tensor:
            q, v = x * 2, x * 3
            out = F.scaled_dot_product_attention(q, q, v)
            if self.which == "output":
                out.add_(1).mul_(out.detach().clone())
            if self.which == "nothing":
                out = (out + 1) * (out + 1).detach()
            if self.which == "query":
                with torch.no_grad():
                    q.add_(1)
            return out.sum(1)

    x = torch.randn(2, 3, 8, dtype=torch.float64)
    with nullcontext() if backend is None else sdpa_kernel(backend):
        # A change of the output is fine: the gradient is taken before it.
        for more in ({}, {"multiply_by_attention": True}):
            options = {"center": True, **more}
            truth = AttentionGradient(InPlace("nothing"), **options).attribute(x, 1)
            found = AttentionGradient(InPlace("output"), **options).attribute(x, 1)
            torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)
            layer = LayerAttentionGradient(InPlace("output"), **options)
            torch.testing.assert_close(found, layer.attribute(x, 1)[0].sum((1, 2)))
        with pytest.raises(RuntimeError, match=r"query of the attention.*in place"):
            LayerAttentionGradient(InPlace("query"), center=True).attribute(x, 1)
