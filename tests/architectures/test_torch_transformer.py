"""``nn.Transformer`` and its parts, in the settings in which people run them."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    LayerAttentionGradient,
    find_attention_layers,
)
from tests import reference
from tests.architectures.table import Table

COMBINATIONS = list(itertools.product((False, True), repeat=2))
EXAMPLES, SOURCE, OUTPUT, WIDTH = 3, 6, 4, 8
_KEPT = torch.tensor([6, 4, 3])


class Truth:
    """The forward pass from the documentation of the modules, weights kept by name."""

    def __init__(self) -> None:
        self.calls: dict[str, reference.MaterialisedAttention] = {}

    def attend(
        self,
        name: str,
        module: nn.MultiheadAttention,
        query: Tensor,
        key: Tensor,
        padding: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        order = (lambda t: t) if module.batch_first else (lambda t: t.transpose(0, 1))
        output, self.calls[name] = reference.multi_head_attention(
            module, order(query), order(key), order(key), padding, mask
        )
        return order(output)

    def layer(
        self,
        name: str,
        layer: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer,
        x: Tensor,
        memory: Tensor | None = None,
        padding: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        own = padding if memory is None else None

        def self_attention(x: Tensor) -> Tensor:
            return self.attend(f"{name}.self_attn", layer.self_attn, x, x, own, mask)

        def cross_attention(x: Tensor) -> Tensor:
            assert memory is not None
            attention = layer.multihead_attn
            return self.attend(
                f"{name}.multihead_attn", attention, x, memory, padding, None
            )

        def feed_forward(x: Tensor) -> Tensor:
            return layer.linear2(layer.linear1(x).relu())

        blocks = [(self_attention, layer.norm1), (feed_forward, layer.norm2)]
        if memory is not None:
            blocks[1:] = [(cross_attention, layer.norm2), (feed_forward, layer.norm3)]
        for block, norm in blocks:
            x = x + block(norm(x)) if layer.norm_first else norm(x + block(x))
        return x

    def scores(self, name: str, multiply: bool, center: bool) -> Tensor:
        attend = self.calls[name]
        (A,), (allowed,) = attend.weights, attend.allowed
        G = self.gradients[name]
        return reference.pair_scores(A, G, allowed, multiply, center)

    def differentiate(self, score: Tensor) -> None:
        weights = [attend.weights[0] for attend in self.calls.values()]
        gradients = reference.weight_gradients(score, weights)
        self.gradients = dict(zip(self.calls, gradients, strict=True))


class Sequence2Sequence(nn.Module):
    """``nn.Transformer``, batch first outside whatever it wants inside."""

    def __init__(self, batch_first: bool, norm_first: bool) -> None:
        super().__init__()
        with warnings.catch_warnings():  # torch says that it will not nest tensors
            warnings.simplefilter("ignore")
            self.transformer = nn.Transformer(
                WIDTH,
                2,
                num_encoder_layers=2,
                num_decoder_layers=2,
                dim_feedforward=12,
                batch_first=batch_first,
                norm_first=norm_first,
            )
        self.batch_first = batch_first

    def forward(self, source: Tensor, target: Tensor, padding: Tensor | None) -> Tensor:
        if not self.batch_first:
            source, target = source.transpose(0, 1), target.transpose(0, 1)
        output = self.transformer(
            source,
            target,
            tgt_mask=_causal(),
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return _numbers(output if self.batch_first else output.transpose(0, 1))

    def truth(self, source: Tensor, target: Tensor, padding: Tensor | None) -> Truth:
        truth, model = Truth(), self.transformer
        for i, layer in enumerate(model.encoder.layers):
            name = f"transformer.encoder.layers.{i}"
            source = truth.layer(name, layer, source, padding=padding)
        source = model.encoder.norm(source)
        for i, layer in enumerate(model.decoder.layers):
            name = f"transformer.decoder.layers.{i}"
            target = truth.layer(name, layer, target, source, padding, _causal())
        truth.differentiate(_numbers(model.decoder.norm(target))[:, 1])
        return truth


class Encoder(nn.Module):
    """``nn.TransformerEncoder``, whose inference path nests padded tensors."""

    def __init__(self, batch_first: bool, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, 2, 12, batch_first=batch_first, norm_first=norm_first
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.encoder = nn.TransformerEncoder(layer, 2)
        self.batch_first = batch_first

    def forward(self, source: Tensor, target: Tensor, padding: Tensor | None) -> Tensor:
        if not self.batch_first:
            source = source.transpose(0, 1)
        output = self.encoder(source, src_key_padding_mask=padding)
        output = output if self.batch_first else output.transpose(0, 1)
        # What becomes of padding is not defined: nested tensors make it 0.
        kept = torch.arange(SOURCE) < _KEPT.unsqueeze(1)
        return _numbers(output * kept.unsqueeze(2))

    def truth(self, source: Tensor, target: Tensor, padding: Tensor | None) -> Truth:
        truth = Truth()
        for i, layer in enumerate(self.encoder.layers):
            source = truth.layer(f"encoder.layers.{i}", layer, source, padding=padding)
        kept = torch.arange(SOURCE) < _KEPT.unsqueeze(1)
        truth.differentiate(_numbers(source * kept.unsqueeze(2))[:, 1])
        return truth


def _causal() -> Tensor:
    return torch.ones(OUTPUT, OUTPUT, dtype=torch.bool).triu(1)


def _numbers(output: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    width = output.shape[1] * output.shape[2]
    return output.flatten(1).tanh() @ torch.randn(width, 3, generator=generator).to(
        output
    )


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("norm_first", [False, True], ids=["post", "pre"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["LNE", "NLE"])
@pytest.mark.parametrize("setting", ["trainable", "frozen", "no_grad"])
@pytest.mark.parametrize("kind", [Sequence2Sequence, Encoder])
def test_exact(
    kind: type[Encoder] | type[Sequence2Sequence],
    setting: str,
    batch_first: bool,
    norm_first: bool,
    padded: bool,
    table: Table,
) -> None:
    model = kind(batch_first, norm_first).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    source = torch.randn(EXAMPLES, SOURCE, WIDTH, dtype=torch.float64)
    target = torch.randn(EXAMPLES, OUTPUT, WIDTH, dtype=torch.float64)
    padding = torch.arange(SOURCE) >= _KEPT.unsqueeze(1) if padded else None
    arguments = (source, target, padding)
    truth = model.truth(*arguments)
    model.requires_grad_(setting != "frozen")

    found = find_attention_layers(model, *arguments)
    assert [info.name for info in found] == list(truth.calls)
    caller = torch.no_grad() if setting == "no_grad" else contextlib.nullcontext()
    groups: dict[str, list[str]] = {}
    for name in truth.calls:
        part = "encoder" if "encoder" in name else "decoder"
        group = "cross" if name.endswith("multihead_attn") else part
        groups.setdefault(group, []).append(name)
    for group, names in groups.items():

        def check(got: Tensor, expected: Tensor, group: str = group) -> None:
            table.compare(
                f"nn.Transformer{'' if kind is Sequence2Sequence else 'Encoder'}",
                "nn.MultiheadAttention",
                got,
                expected.detach(),
                layers=group,
                remark="trainable, frozen, under no_grad; batch first and not",
                library="torch",
            )

        modules = [model.get_submodule(name) for name in names]
        for multiply, center in COMBINATIONS:
            options = {"multiply_by_attention": multiply, "center": center}
            expected = [truth.scores(name, multiply, center) for name in names]
            with caller:
                method = AttentionGradient(model, modules, **options)
                scores = method.attribute(source, 1, (target, padding))
                row = method.attribute(source, 1, (target, padding), query=-1)
                layer_method = LayerAttentionGradient(model, modules, **options)
                maps = layer_method.attribute(source, 1, (target, padding))
                table.proved(
                    f"nn.Transformer{'' if kind is Sequence2Sequence else 'Encoder'}",
                    "nn.MultiheadAttention",
                    layer_method,
                    source,
                    (target, padding),
                    library="torch",
                )
            total = sum(pairs.sum(dim=1) for pairs in expected)
            check(scores, total.sum(dim=1))
            if total[:, -1].any():  # padding is not read out
                check(row, total[:, -1])
            for got, want in zip(maps, expected, strict=True):
                check(got, want)


def test_the_fast_path_is_used_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fused = torch._transformer_encoder_layer_fwd
    calls = []

    def counted(*args: Any) -> Tensor:
        calls.append(1)
        return fused(*args)

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counted)
    # float32 without padding: nothing else keeps torch from its fast path.
    model = Encoder(batch_first=True, norm_first=False).eval().requires_grad_(False)
    source = torch.randn(EXAMPLES, SOURCE, WIDTH)
    model(source, source, None)
    before = len(calls)
    assert before == 2  # one for each layer
    AttentionGradient(model, model.encoder).attribute(source, 1, (source, None))
    assert len(calls) == before
    model(source, source, None)
    assert len(calls) == 2 * before
