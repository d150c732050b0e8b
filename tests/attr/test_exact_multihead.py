"""nn.MultiheadAttention in all its options, against its definition."""

from __future__ import annotations

import itertools

import pytest
import torch
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


class Wrapped(nn.Module):
    """Cross attention, batch first outside whatever the module wants inside."""

    def __init__(self, attention: nn.MultiheadAttention, **call: object) -> None:
        super().__init__()
        self.attention, self.call = attention, call
        self.out = nn.Linear(attention.embed_dim, 3)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self.score(
            self.attention(*self.order(queries, keys, values), **self.call)[0]
        )

    def order(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self.attention.batch_first:
            return tensors
        return tuple(t.transpose(0, 1) for t in tensors)

    def score(self, output: Tensor) -> Tensor:
        (output,) = self.order(output)
        return self.out(output.tanh()).mean(1)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Wrapped, tuple[Tensor, ...], dict]:
    torch.manual_seed(draw(st.integers(0, 99)))
    batch, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    queries, keys = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    width = 2 * heads
    separate = draw(st.booleans())
    module = nn.MultiheadAttention(
        width,
        heads,
        bias=draw(st.booleans()),
        add_bias_kv=draw(st.booleans()),
        add_zero_attn=draw(st.booleans()),
        kdim=5 if separate else None,
        vdim=4 if separate else None,
        batch_first=draw(st.booleans()),
    )
    for parameter in module.parameters():  # biases start at zero
        nn.init.normal_(parameter, std=0.7)
    masks = {}
    if draw(st.booleans()):
        padding = torch.rand(batch, keys) < 0.4
        padding[:, 0] = False
        masks["key_padding_mask"] = padding
    kind = draw(st.sampled_from(["none", "bool", "float", "per head"]))
    if kind != "none":
        rows = (batch * heads, queries) if kind == "per head" else (queries,)
        mask = torch.rand(*rows, keys) < 0.3
        mask[..., 0] = False
        if kind == "float" and not masks:
            masks["attn_mask"] = torch.randn(*rows, keys, dtype=torch.float64)
        else:
            masks["attn_mask"] = mask
    model = Wrapped(module, need_weights=draw(st.booleans()), **masks).double().eval()
    model.requires_grad_(draw(st.booleans()))
    inputs = (
        torch.randn(batch, queries, width, dtype=torch.float64),
        torch.randn(batch, keys, 5 if separate else width, dtype=torch.float64),
        torch.randn(batch, keys, 4 if separate else width, dtype=torch.float64),
    )
    return model, inputs, masks


@given(cases(), st.sampled_from(OPTIONS))
@settings(max_examples=120)
def test_all_options_equal_the_definition(case, options) -> None:
    model, inputs, masks = case
    output, attend = reference.multi_head_attention(
        model.attention, *model.order(*inputs), **masks
    )
    score = model.score(output)[:, 1]
    torch.testing.assert_close(score, model(*inputs)[:, 1])  # the reference is right
    gradients = reference.weight_gradients(score, attend.weights)
    expected = reference.pair_scores(
        attend.weights[0], gradients[0], attend.allowed[0], *options
    )
    choice = dict(zip(("multiply_by_attention", "center"), options, strict=True))
    found = LayerAttentionGradient(model, model.attention, **choice).attribute(
        inputs, target=1
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    (summed,) = AttentionGradient(model, **choice).attribute(inputs, target=1)
    torch.testing.assert_close(summed, expected.sum((1, 2)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layer", ["container", "self_attn"])
def test_the_inference_fast_path_is_left(
    frozen: bool, padded: bool, layer: str
) -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=True).eval()
    encoder.requires_grad_(not frozen)

    def model(x: Tensor) -> Tensor:
        mask = torch.zeros(2, 5, dtype=torch.bool)
        mask[0, 3:] = padded
        return encoder(x, src_key_padding_mask=mask if padded else None)[:, 0]

    chosen = encoder if layer == "container" else encoder.layers[0].self_attn
    inputs = torch.randn(2, 5, 8)
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():
        scores = AttentionGradient(model, chosen).attribute(inputs, target=3)
    assert scores.abs().sum() > 0
    assert bool((scores[0, 3:] == 0).all()) is padded
    assert torch.backends.mha.get_fastpath_enabled() is before
    assert len(find_attention_layers(encoder, inputs)) == 2
