"""The context manager, the calls it gives and the table of layers."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_attngrad import capture_attention, find_attention_layers
from captum_attngrad.capture import AttentionRecord
from captum_attngrad.capture._masks import PairMask, forbidden_scores
from tests.attr.models import SelfAttention, classifier, token_ids


def test_a_call_gives_weights_gradient_and_allowed_pairs() -> None:
    model = classifier()
    ids, mask = token_ids()
    with capture_attention(model) as record:
        logits = model(ids, mask)
    assert isinstance(record, AttentionRecord)
    assert [call.layer for call in record] == ["layers.0", "layers.1"]
    call = record[1]
    assert (call.kind, call.batch_size, call.heads) == (
        "scaled_dot_product_attention",
        4,
        2,
    )
    assert (call.query_length, call.key_length) == (5, 5)
    weights = call.weights()
    assert weights.shape == (4, 2, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 2, 5).double())
    assert not weights[1, :, :, 3:].any()
    assert not call.allowed()[1, :, :, 3:].any()
    assert call.allowed()[0].all()
    with pytest.raises(RuntimeError, match=r"compute_gradients\(score\) has not been"):
        call.gradient()
    record.compute_gradients(logits[:, 1])
    assert call.gradient().shape == (4, 2, 5, 5)
    assert repr(call) == (
        "FusedCall(layer='layers.1', kind='scaled_dot_product_attention', heads=2, "
        "queries=5, keys=5)"
    )


def test_the_output_of_the_model_is_not_changed() -> None:
    model = classifier()
    ids, mask = token_ids()
    expected = model(ids, mask)
    with capture_attention(model):
        found = model(ids, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for kind in (True, False):
        module = nn.MultiheadAttention(8, 2).double()
        x = torch.randn(3, 4, 8, dtype=torch.float64)
        expected = module(x, x, x, need_weights=kind)
        with capture_attention(module, batch_size=4):  # (tokens, batch, features)
            found = module(x, x, x, need_weights=kind)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_only_the_chosen_layer_is_recorded() -> None:
    model = classifier()
    ids, _ = token_ids()
    with capture_attention(model, model.layers[1]) as record:
        model(ids)
        F.scaled_dot_product_attention(*torch.randn(3, 1, 1, 2, 4))
    assert [call.layer for call in record] == ["layers.1"]


def test_the_callers_own_backward_is_as_before() -> None:
    model = classifier()
    ids, _ = token_ids()
    model(ids).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with capture_attention(model):
        output = model(ids)
    output.sum().backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_score_that_does_not_depend_on_the_attention() -> None:
    model = classifier()
    with capture_attention(model) as record:
        output = model(token_ids()[0])
    with pytest.raises(
        RuntimeError, match=r"of 'layers\.0', 'layers.1': they are not on"
    ):
        record.compute_gradients(output.detach())
    with capture_attention(model) as record, torch.no_grad():
        output = model(token_ids()[0])
    assert len(record) == 2
    with pytest.raises(RuntimeError, match="not on the path"):
        record.compute_gradients(output)


class Decoder(nn.Module):
    """One layer that runs three times."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, memory: Tensor) -> Tensor:
        state = memory[:, :1]
        for _ in range(3):
            state = state + self.attention(state, memory, memory)[0]
        return state[:, 0]


def test_a_layer_that_runs_several_times() -> None:
    model = Decoder().eval()
    memory = torch.randn(2, 5, 8)
    with capture_attention(model) as record:
        output = model(memory)
    assert [(c.layer, c.query_length) for c in record] == [("attention", 1)] * 3
    record.compute_gradients(output[:, 0])
    assert len({float(call.gradient().sum()) for call in record}) == 3
    (info,) = find_attention_layers(model, memory)
    assert (info.name, info.calls) == ("attention", 3)


def test_no_cycle_keeps_the_tensors_alive() -> None:
    model = classifier()
    ids, _ = token_ids()
    gc.collect()
    gc.disable()
    try:
        with capture_attention(model) as record:
            output = model(ids)
        record.compute_gradients(output[:, 0])
        tensor = weakref.ref(record[0].query)
        del record, output
        assert tensor() is None
    finally:
        gc.enable()


def test_find_attention_layers() -> None:
    model = classifier()
    ids, mask = token_ids()
    layers = find_attention_layers(model, ids, mask=mask)
    assert [layer.name for layer in layers] == ["layers.0", "layers.1"]
    assert layers.modules == list(model.layers)
    assert all(model.get_submodule(layer.name) is layer.module for layer in layers)
    assert str(layers).splitlines() == [
        "layer     kind                          heads  queries x keys  calls",
        "--------------------------------------------------------------------",
        "layers.0  scaled_dot_product_attention  2      5 x 5           1",
        "layers.1  scaled_dot_product_attention  2      5 x 5           1",
    ]
    assert "(the model itself)" in str(
        find_attention_layers(SelfAttention(), torch.randn(2, 3, 8))
    )
    with pytest.raises(TypeError, match=r"needs a torch\.nn\.Module, got function"):
        find_attention_layers(lambda x: model(x), ids)


def test_find_attention_layers_of_a_model_in_training() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
    encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
    (first, second) = find_attention_layers(encoder, torch.randn(2, 3, 8))
    assert (first.name, second.name) == ("layers.0.self_attn", "layers.1.self_attn")
    assert encoder.training


def test_an_exception_leaves_nothing_behind() -> None:
    model = classifier()
    with pytest.raises(IndexError), capture_attention(model):
        model(torch.full((1, 2), 99))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not torch.overrides._get_current_function_mode_stack()
    with pytest.raises(TypeError, match="got list"), capture_attention(model, [[]]):
        pass


# -- masks ---------------------------------------------------------------------------


def test_forbidden_scores() -> None:
    low = torch.finfo(torch.float16).min
    scores = torch.tensor([[0.0, -3.0, -torch.inf], [-1e9, -1e9, -1e9]])
    assert forbidden_scores(scores).tolist() == [[False, False, True], [True] * 3]
    added = torch.tensor([[-1e4 + 0.5, -1e4 - 1.0], [-1e9 - 64, -1e9]])
    assert forbidden_scores(added).tolist() == [[False, False], [True, True]]
    half = torch.tensor([[1.0, low, -1e4]], dtype=torch.float16)
    assert forbidden_scores(half).tolist() == [[False, True, True]]
    nothing = torch.full((1, 2), -torch.inf)
    assert forbidden_scores(nothing).tolist() == [[True, True]]


def test_pair_masks() -> None:
    causal = PairMask(None, True, 3, 4)
    expected = torch.ones(3, 4).tril().bool()
    assert torch.equal(causal.allowed(slice(None), torch.device("cpu"))[0, 0], expected)
    rows = torch.tensor([2, 0])
    picked = causal.allowed(rows, torch.device("cpu"))
    assert torch.equal(picked[:, 0, 0], expected[rows])
    assert not causal.same_for_every_query()
    padding = torch.tensor([True, True, False]).expand(2, 1, 3, 3)
    assert PairMask(padding, False, 3, 3).same_for_every_query()
    assert PairMask(padding.clone(), False, 3, 3).same_for_every_query()
    assert not PairMask(padding.tril(), False, 3, 3).same_for_every_query()
    both = PairMask(padding, True, 3, 3).allowed(slice(1, 3), torch.device("cpu"))
    assert both[0, 0].tolist() == [[True, True, False], [True, True, False]]
