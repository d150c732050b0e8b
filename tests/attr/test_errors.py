"""Bad input: each error says what was given and what to do."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
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
        ([0, 1], r"does not fit .* shape \(4, 3\): it holds 2 entries for 4 examples"),
        (torch.tensor([0, 1]), r"it has shape \(2,\) for 4 examples\. Pass one"),
        (torch.zeros(4, 1).long(), r"it has shape \(4, 1\) for 4 examples"),
        ((1, 1), "does not fit"),
        ("one", "does not fit .*: an index must be an integer, got str"),
        (0.7, "an index must be an integer, got float"),
        (1.0, "an index must be an integer, got float"),
        (torch.tensor(0.7), r"an index must be an integer, got torch\.float32"),
        (torch.tensor([0.7, 1, 2, 0]), r"must be an integer, got torch\.float32"),
        ([0, 1, 0.7, 2], r"must be an integer, got 0\.7 \(float\)"),
        (True, "an index must be an integer, got bool"),
        ([True, False, True, True], r"must be an integer, got True \(bool\)"),
        (torch.tensor([True, False, True, True]), "an integer, got booleans"),
        (torch.tensor(True), "an integer, got booleans"),
        ((True,), r"must be an integer, got True \(bool\)"),
        ([(0,), (1,), (0.7,), (1,)], r"must be an integer, got 0\.7 \(float\)"),
        ([], "it holds 0 entries for 4 examples"),
    ],
)
def test_bad_targets(target: object, message: str) -> None:
    model = classifier()
    with pytest.raises(ValueError, match=message):
        AttentionGradient(model).attribute(token_ids()[0], target)


def test_whole_numbers_of_other_kinds_are_targets() -> None:
    model, (ids, _) = classifier(), token_ids()
    method = AttentionGradient(model)
    expected = method.attribute(ids, 1)
    each = [np.int64(1)] * 4
    for target in (np.int64(1), torch.tensor([1] * 4, dtype=torch.int32), each, (1,)):
        torch.testing.assert_close(method.attribute(ids, target), expected)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (0.7, r"labels of torch\.float64 and shape \(4,\).*shape \(4, 3\).*integers"),
        ([0.7, 0.2, 0.1, 1.0], r"loss_func failed with labels of torch\.float64"),
        (torch.tensor([0.7, 0.2, 0.1, 1]), r"loss_func failed with labels of torch"),
        (True, "target=True holds a bool"),
        ([True, False, True, True], r"target=\[True, False.* holds a bool"),
        (torch.tensor([True, False, True, True]), r"labels of torch\.bool"),
        ([0, 1], "target holds 2 labels for 4 examples"),
        (torch.tensor([0, 1]), "target holds 2 labels for 4 examples"),
        ([0.5, 1.0], "target holds 2 labels for 4 examples"),
        (["a", "b", "c", "d"], "cannot be converted to a tensor of labels"),
        ([0, 1, 2, 7], r"loss_func failed with labels of torch\.int64.*bounds"),
    ],
)
def test_bad_labels(target: object, message: str) -> None:
    method = AttentionGradient(classifier(), loss_func=F.cross_entropy)
    with pytest.raises(ValueError, match=message):
        method.attribute(token_ids()[0], target)


def test_labels_of_losses_that_take_numbers() -> None:
    """0.7 is a label where the loss says so."""
    model, (ids, _) = classifier(()), token_ids()
    loss = F.binary_cross_entropy_with_logits
    labels = torch.tensor([0.7, 0.2, 0.1, 1.0], dtype=torch.float64)

    def by_hand(x: Tensor) -> Tensor:
        z = model(x).squeeze(1)
        return labels * F.logsigmoid(z) + (1 - labels) * F.logsigmoid(-z)

    expected = AttentionGradient(by_hand, model.layers).attribute(ids)
    for reduction in ("none", "mean"):
        method = AttentionGradient(
            lambda x: model(x).squeeze(1),
            model.layers,
            loss_func=lambda o, t, r=reduction: loss(o, t, reduction=r),
        )
        for given in (labels, labels.tolist()):
            torch.testing.assert_close(method.attribute(ids, given), expected)
        for given in (0.7, torch.tensor(0.7, dtype=torch.float64)):
            one = method.attribute(ids, given)[:1]
            torch.testing.assert_close(one, expected[:1])


def test_labels_that_cannot_be_shared_out() -> None:
    model, (ids, _) = classifier(), token_ids()
    anchor = torch.randn(3, dtype=torch.float64)

    def each(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().sum(1)

    AttentionGradient(model, loss_func=each).attribute(ids, anchor)
    method = AttentionGradient(model, loss_func=lambda o, t: each(o, t).mean())
    message = r"one number for all 4 examples, and target has shape \(3,\)"
    with pytest.raises(ValueError, match=message):
        method.attribute(ids, anchor)
    # Of a tuple, what holds one entry for each example is shared out.
    labels = torch.tensor([0, 1, 2, 0])
    weighed = AttentionGradient(
        model, loss_func=lambda o, t: F.cross_entropy(o * t[1], t[0])
    ).attribute(ids, (labels, anchor))
    expected = AttentionGradient(
        lambda x: model(x) * anchor, model.layers, loss_func=F.cross_entropy
    ).attribute(ids, labels)
    torch.testing.assert_close(weighed, expected)


def test_mistakes_in_a_loss_are_not_blamed_on_the_labels() -> None:
    model, (ids, _) = classifier(), token_ids()

    def wrong(output: Tensor, target: Tensor) -> Tensor:
        return output @ output

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        AttentionGradient(model, loss_func=wrong).attribute(ids, 1)

    def short(output: Tensor, target: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RuntimeError, match=r"^CUDA out of memory"):
        AttentionGradient(model, loss_func=short).attribute(ids, 0.7)


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
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    for mixed in (
        lambda x: model(x + x.mean(0)),
        lambda x: model(x.flatten(0, 1)[None]).expand(4, -1),
        lambda x: model(x[:, 0].expand(4, 4, 8)),
    ):
        method = AttentionGradient(mixed, model.layers)
        with pytest.raises(ValueError, match="which of the 4 examples: no dimension"):
            method.attribute(x, 1)


def test_copies_of_an_example_count_for_it() -> None:
    model = classifier(embed=False)
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    method = AttentionGradient(
        lambda x: model(torch.cat([x, x])).unflatten(0, (2, -1)).sum(0), model.layers
    )
    expected = AttentionGradient(model).attribute(x, 1)
    torch.testing.assert_close(method.attribute(x, 1), 2 * expected)


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
