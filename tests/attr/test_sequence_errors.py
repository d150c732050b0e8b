"""Bad input to SequenceAttentionGradient, and what must be as before afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import SequenceAttentionGradient
from tests.attr.sequence_models import batch, recurrent, transformer
from tests.attr.surroundings import state, unchanged


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([[0, 1, 2]] * 3, r"4 outputs for 3 examples, and targets has shape \(3, 3\)"),
        (torch.zeros(2, 4).long(), r"here \(3, outputs\), got shape \(2, 4\)"),
        (torch.zeros(3).long(), r"got shape \(3,\)"),
        (torch.zeros(3, 4), r"must be token ids \(integers\).*got torch\.float32"),
        (torch.zeros(3, 0).long(), "targets is empty"),
        (torch.full((3, 4), 7), r"targets\[0, 0\] = 7 is out of range.*0 to 6"),
        (torch.full((3, 4), -1), r"targets\[0, 0\] = -1 is out of range"),
        (torch.full((3, 4), -100), "All targets are -100"),
        ("four words", "must be token ids"),
        (None, "must be token ids"),
    ],
)
def test_bad_targets(targets: Any, message: str) -> None:
    model = recurrent("luong")
    source, fed, _, _ = batch()
    with pytest.raises(ValueError, match=message):
        SequenceAttentionGradient(model).attribute(source, targets, fed)


def test_one_target_out_of_range_is_named() -> None:
    model = recurrent("luong")
    source, fed, targets, _ = batch()
    targets[1, 2] = 9
    with pytest.raises(ValueError, match=r"targets\[1, 2\] = 9 is out of range"):
        SequenceAttentionGradient(model).attribute(source, targets, fed)


def test_outputs_of_another_shape() -> None:
    model = recurrent("luong")
    source, fed, targets, _ = batch()
    method = SequenceAttentionGradient(lambda *a: model(*a).sum(-1), model.attention)
    with pytest.raises(ValueError, match=r"returned shape \(3, 4\), expected \(batch"):
        method.attribute(source, targets, fed)
    method = SequenceAttentionGradient(lambda *a: {"x": model(*a)}, model.attention)
    with pytest.raises(TypeError, match="forward_func returned dict"):
        method.attribute(source, targets, fed)


def test_another_number_of_calls_than_outputs() -> None:
    model = recurrent("bahdanau")
    source, fed, targets, _ = batch()
    method = SequenceAttentionGradient(lambda *a: model(*a)[:, 1:], model.attention)
    message = r"returned 3 outputs.*'Attention' \(4 calls, 1 x 6\).*ignore_index"
    with pytest.raises(ValueError, match=message):
        method.attribute(source, targets[:, 1:], fed)


def test_an_encoder_has_no_rows_for_outputs() -> None:
    model = transformer()
    source, fed, targets, _ = batch()
    encoder = model.transformer.encoder
    with pytest.raises(ValueError, match=r"4 outputs, and no attention.*6 x 6"):
        SequenceAttentionGradient(model, encoder).attribute(source, targets, fed)
    with pytest.raises(ValueError, match="No attention was found in the layer Linear"):
        SequenceAttentionGradient(model, model.out).attribute(source, targets, fed)


def test_self_and_cross_attention_are_not_added() -> None:
    model = transformer()
    source, fed, targets, _ = batch()
    first = model.transformer.decoder.layers[0]
    method = SequenceAttentionGradient(model, [first.self_attn, first.multihead_attn])
    with pytest.raises(ValueError, match=r"\(queries x keys: 4 x 4\) does not go from"):
        method.attribute(source, targets, fed)


def test_one_token_each_cannot_be_told_apart() -> None:
    model = transformer()
    source, fed, targets, _ = batch(1, 1)
    with pytest.raises(ValueError, match="both have one token"):
        SequenceAttentionGradient(model).attribute(source, targets, fed)
    cross = [layer.multihead_attn for layer in model.transformer.decoder.layers]
    method = SequenceAttentionGradient(model, cross[0])
    assert method.attribute(source, targets, fed).shape == (3, 1, 1)


class NotCausal(nn.Module):
    """Every output depends on all rows: there is no telling decoder from encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.model = transformer()

    def forward(self, source: Tensor, fed: Tensor) -> Tensor:
        model = self.model
        return model.out(model.transformer(model.embed(source), model.embed(fed)))


def test_decoders_that_are_not_causal() -> None:
    model = NotCausal().eval()
    source, fed, targets, _ = batch(4, 4)
    with pytest.raises(ValueError, match="no causal self-attention"):
        SequenceAttentionGradient(model).attribute(source, targets, fed)
    cross = [layer.multihead_attn for layer in model.model.transformer.decoder.layers]
    found = SequenceAttentionGradient(model, cross).attribute(source, targets, fed)
    assert found.shape == (3, 4, 4)


def test_attention_that_is_not_on_the_path() -> None:
    model = recurrent("luong_plain")
    source, fed, targets, _ = batch()

    def detached(source: Tensor, fed: Tensor) -> Tensor:
        return model(source, fed).detach() + model.out.weight.sum()

    def lost(source: Tensor, fed: Tensor) -> Tensor:
        return model(source, fed).detach()

    for forward in (detached, lost):
        method = SequenceAttentionGradient(forward, model.attention)
        with pytest.raises(RuntimeError, match="not on the path"):
            method.attribute(source, targets, fed)


class Detached(nn.Module):
    """The first layer's cross-attention does not reach the output."""

    def __init__(self) -> None:
        super().__init__()
        self.model = transformer()
        first = self.model.transformer.decoder.layers[0]
        first.multihead_attn.register_forward_hook(
            lambda _, args, output: (output[0].detach(), None)
        )

    def forward(self, source: Tensor, fed: Tensor) -> Tensor:
        return self.model(source, fed)


def test_one_layer_that_is_not_on_the_path() -> None:
    model = Detached().eval()
    source, fed, targets, _ = batch()
    first, second = model.model.transformer.decoder.layers
    both = [first.multihead_attn, second.multihead_attn]
    with pytest.raises(RuntimeError, match=r"0\.multihead_attn.* not on the path"):
        SequenceAttentionGradient(model, both).attribute((source, fed), targets)
    with pytest.warns(
        UserWarning, match=r"layers\.0\.multihead_attn'; they count as 0"
    ):
        (found,) = SequenceAttentionGradient(model).attribute((source, fed), targets)
    method = SequenceAttentionGradient(model, second)
    torch.testing.assert_close(method.attribute((source, fed), targets)[0], found)


def test_bad_options() -> None:
    model = transformer()
    source, fed, targets, _ = batch()
    with pytest.raises(ValueError, match="layer is None, and forward_func"):
        SequenceAttentionGradient(lambda *a: model(*a))
    with pytest.raises(ValueError, match="head 2 is out of range"):
        SequenceAttentionGradient(model, heads=[2]).attribute(source, targets, fed)
    with pytest.raises(
        ValueError, match="internal_batch_size=0: expected a whole number"
    ):
        SequenceAttentionGradient(model).attribute(
            source, targets, fed, internal_batch_size=0
        )
    model.transformer.decoder.layers[0].multihead_attn.dropout = 0.5
    with pytest.raises(RuntimeError, match="dropout is active"):
        SequenceAttentionGradient(model.train()).attribute(source, targets, fed)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_before(fails: bool) -> None:
    model = transformer()
    source, fed, targets, _ = batch()
    model.out.weight.grad = torch.ones_like(model.out.weight)
    before, random = state(model), torch.get_rng_state()
    if fails:
        targets[0, 0] = 99
        with pytest.raises(ValueError, match="out of range"):
            SequenceAttentionGradient(model).attribute(source, targets, fed)
    else:
        SequenceAttentionGradient(model).attribute(source, targets, fed)
    unchanged(before, model)
    assert torch.equal(torch.get_rng_state(), random)
