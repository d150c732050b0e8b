"""Encoder-decoder transformers against materialised weights, one output at a time."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import AttentionGradient, SequenceAttentionGradient
from captum_attngrad.attr.sequence import _diagonal_gradients, _isolated_positions
from tests import reference
from tests.attr.sequence_models import (
    EXAMPLES,
    OUTPUTS,
    SOURCE,
    Transformer,
    batch,
    one_by_one,
    transformer,
)
from tests.attr.surroundings import Replicated


class Truth:
    """The decoder of ``Transformer`` from the documentation, with its weights kept."""

    def __init__(self, model: Transformer, fed: Tensor, memory: Tensor, padding: Any):
        self.calls: dict[str, list[reference.MaterialisedAttention]] = {}
        self.mask = torch.ones(fed.shape[1], fed.shape[1], dtype=torch.bool).triu(1)
        x = model.embed(fed)
        for layer in model.transformer.decoder.layers:
            x = self._layer(layer, x, memory, padding)
        self.output = model.out(model.transformer.decoder.norm(x))

    def _attend(self, name: str, *args: Any) -> Tensor:
        output, call = reference.multi_head_attention(*args)
        self.calls.setdefault(name, []).append(call)
        return output

    def _layer(self, layer: Any, x: Tensor, memory: Tensor, padding: Any) -> Tensor:
        blocks = [
            lambda x: self._attend("self", layer.self_attn, x, x, x, None, self.mask),
            lambda x: self._attend(
                "cross", layer.multihead_attn, x, memory, memory, padding
            ),
            lambda x: layer.linear2(layer.linear1(x).relu()),
        ]
        norms = [layer.norm1, layer.norm2, layer.norm3]
        for block, norm in zip(blocks, norms, strict=True):
            x = x + block(norm(x)) if layer.norm_first else norm(x + block(x))
        return x


def truth_of(model: Transformer, source: Tensor, fed: Tensor, padding: Any) -> Truth:
    x = model.embed(source)
    x = x if model.batch_first else x.transpose(0, 1)
    memory = model.transformer.encoder(x, src_key_padding_mask=padding)
    memory = memory if model.batch_first else memory.transpose(0, 1)
    # nn.MultiheadAttention of the reference reads batch_first off the module.
    attentions = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    with contextlib.ExitStack() as restore:
        for module in attentions:
            restore.callback(setattr, module, "batch_first", module.batch_first)
            module.batch_first = True
        return Truth(model, fed, memory, padding)


def scores(
    truth: Truth,
    targets: Tensor,
    name: str,
    multiply: bool = False,
    center: bool = False,
) -> list[Tensor]:
    """Of each layer, ``(batch, heads, outputs, keys)``."""
    calls = truth.calls[name]
    gradients = one_by_one(truth.output, targets, [c.weights[0] for c in calls])
    return [
        reference.pair_scores(c.weights[0], g, c.allowed[0], multiply, center)
        for c, g in zip(calls, gradients, strict=True)
    ]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("outputs", [1, 2, OUTPUTS, SOURCE])
def test_torch_transformer(outputs: int, padded: bool, norm_first: bool) -> None:
    model = transformer(norm_first)
    source, fed, targets, padding = batch(outputs=outputs)
    mask = padding if padded else None
    truth = truth_of(model, source, fed, mask)
    torch.testing.assert_close(model(source, fed, mask), truth.output)
    expected = sum(s.sum(1) for s in scores(truth, targets, "cross"))
    method = SequenceAttentionGradient(model)
    found = method.attribute(source, targets, (fed, mask))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("multiply", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("heads", [None, [1], [[True, False], [False, True]]])
def test_options(multiply: bool, center: bool, heads: Any) -> None:
    model = transformer()
    source, fed, targets, padding = batch()
    truth = scores(
        truth_of(model, source, fed, padding), targets, "cross", multiply, center
    )
    options: dict[str, Any] = {"multiply_by_attention": multiply, "center": center}
    method = SequenceAttentionGradient(model, heads=heads, **options)
    chosen = [[0, 1], [0, 1]] if heads is None else [[1], [1]]
    chosen = [[0], [1]] if heads and len(heads) == 2 else chosen
    expected = sum(s[:, h].sum(1) for s, h in zip(truth, chosen, strict=True))
    found = method.attribute(source, targets, (fed, padding))
    torch.testing.assert_close(found, expected)
    positive = SequenceAttentionGradient(
        model, heads=heads, positive_only=True, **options
    )
    expected = sum(
        s[:, h].clamp_min(0).sum(1) for s, h in zip(truth, chosen, strict=True)
    )
    found = positive.attribute(source, targets, (fed, padding))
    torch.testing.assert_close(found, expected)
    if multiply and center:
        total = method.attribute(source, targets, (fed, padding)).sum(-1)
        torch.testing.assert_close(total, torch.zeros_like(total))


@pytest.mark.parametrize("layer", [0, 1])
def test_one_layer_and_the_heads_of_nn_transformer_in_sequence_first_order(
    layer: int,
) -> None:
    model = transformer(batch_first=False)
    source, fed, targets, _ = batch()
    expected = scores(truth_of(model, source, fed, None), targets, "cross")[layer]
    decoder_layer = model.transformer.decoder.layers[layer]
    for module in (decoder_layer.multihead_attn, decoder_layer):
        method = SequenceAttentionGradient(lambda *a: model(*a), module)
        found = method.attribute((source, fed), targets)[0]
        torch.testing.assert_close(found, expected.sum(1))


def test_self_attention_of_the_decoder_when_it_is_named() -> None:
    model = transformer()
    source, fed, targets, _ = batch()
    truth = scores(truth_of(model, source, fed, None), targets, "self")
    layers = [layer.self_attn for layer in model.transformer.decoder.layers]
    found = SequenceAttentionGradient(model, layers).attribute(source, targets, fed)
    assert found.shape == (EXAMPLES, OUTPUTS, OUTPUTS)
    torch.testing.assert_close(found, sum(s.sum(1) for s in truth))


def test_the_sum_of_all_scores_has_another_gradient() -> None:
    """Later outputs look at earlier positions, and at what these have looked at."""
    model = transformer()
    source, fed, targets, _ = batch()
    truth = truth_of(model, source, fed, None)
    first = truth.calls["cross"][0].weights[0]
    total = truth.output.gather(2, targets.unsqueeze(2)).sum()
    (of_sum,) = torch.autograd.grad(total, first, retain_graph=True)
    found = SequenceAttentionGradient(
        model, model.transformer.decoder.layers[0].multihead_attn
    ).attribute(source, targets, fed)
    for t in range(OUTPUTS - 1):
        difference = (found[:, t] - of_sum.sum(1)[:, t]).norm() / found[:, t].norm()
        assert float(difference) > 0.02
    torch.testing.assert_close(found[:, -1], of_sum.sum(1)[:, -1])


class Leaky(nn.Module):
    """A causal decoder that mixes positions in a way that no attention call shows."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.model = transformer()
        self.conv = nn.Conv1d(8, 8, 3).double()
        self.gru = nn.GRU(8, 8, batch_first=True).double()
        self.later = nn.MultiheadAttention(8, 2, batch_first=True).double()

    def forward(self, source: Tensor, fed: Tensor) -> Tensor:
        model = self.model
        x, y = model.embed(source), model.embed(fed)
        mask = nn.Transformer.generate_square_subsequent_mask(fed.shape[1]).to(x)
        y = model.transformer(x, y, tgt_mask=mask)
        if self.how == "convolution":
            y = self.conv(nn.functional.pad(y.mT, (2, 0))).mT
        if self.how == "recurrence":
            y = self.gru(y)[0]
        if self.how == "einsum":
            a = torch.einsum("btd,bsd->bts", y, y).tril()
            y = y + torch.einsum("bts,bsd->btd", a, y)
        if self.how == "sum":
            y = y.cumsum(1)
        if self.how == "both ways":
            y = self.later(y, y, y)[0]
        if self.how == "last dead":
            y = y + 10 * nn.functional.pad(y[:, -3:-2], (0, 0, fed.shape[1] - 1, 0))
        return model.out(y)


@pytest.mark.parametrize(
    "how", ["convolution", "recurrence", "einsum", "sum", "both ways", "last dead"]
)
def test_other_ways_from_position_to_position_are_found(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Leaky(how).eval()
    source, fed, targets, _ = batch(outputs=5)
    batches = _count_batches(monkeypatch)
    found = SequenceAttentionGradient(
        model,
        [layer.multihead_attn for layer in model.model.transformer.decoder.layers],
    ).attribute((source, fed), targets)[0]
    assert batches
    # The slow way, through the same model: each output with all others ignored.
    for t in range(targets.shape[1]):
        only = torch.full_like(targets, -100)
        only[:, t] = targets[:, t]
        layers = [
            layer.multihead_attn for layer in model.model.transformer.decoder.layers
        ]
        row = _by_query(model, layers, source, fed, targets, t)
        torch.testing.assert_close(found[:, t], row)


def _by_query(
    model: nn.Module,
    layers: list[nn.Module],
    source: Any,
    fed: Any,
    targets: Any,
    t: int,
) -> Tensor:

    method = AttentionGradient(model, layers)
    target = [(t, int(k)) for k in targets[:, t]]
    return method.attribute((source, fed), target, query=t)[0]


def _count_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    original = _diagonal_gradients._backward

    def count(scores: Any, kept: Any, outputs: list[int], sources: Any) -> Any:
        seen.append(len(outputs))
        return original(scores, kept, outputs, sources)

    monkeypatch.setattr(_diagonal_gradients, "_backward", count)
    return seen


@pytest.mark.parametrize("block", [1, 20])
def test_own_weights_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = transformer()
    source, fed, targets, padding = batch(outputs=5)
    whole = SequenceAttentionGradient(model).attribute(source, targets, (fed, padding))
    monkeypatch.setattr(_isolated_positions, "_BLOCK", block)
    found = SequenceAttentionGradient(model).attribute(source, targets, (fed, padding))
    torch.testing.assert_close(found, whole)


def _backward_of(kind: str) -> Any:
    """``2 x`` whose backward pass needs what a batch of gradients does not give."""

    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        if kind == "item":
            assert gradient.sum().item() < torch.inf
        elif kind == "branch":
            assert (gradient < torch.inf).all()
        elif kind == "numpy":
            return torch.from_numpy(gradient.numpy() * 2)
        elif kind == "memory":
            assert gradient.data_ptr()
        elif kind == "storage":
            assert gradient.untyped_storage().nbytes()
        elif kind == "write":
            return torch.zeros_like(ctx.saved_tensors[0]).copy_(gradient) * 2
        elif kind == "mask":
            assert gradient[gradient < torch.inf].numel()
        elif kind == "random":
            return torch.dropout(gradient, 0.0, train=True) * 2
        elif kind == "memory is short":
            raise torch.cuda.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 8 GiB"
            )
        elif kind == "fails":
            raise RuntimeError("a kernel was launched for another device")
        return gradient * 2

    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type("Picky", (torch.autograd.Function,), methods).apply


@pytest.mark.parametrize(
    "kind",
    ["item", "branch", "numpy", "memory", "storage", "write", "mask", "random"],
)
def test_an_operation_without_batched_backward(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs take their turns where torch cannot batch, whatever it says then."""
    model, double = transformer(), _backward_of(kind)
    source, fed, targets, _ = batch()
    layers = [layer.multihead_attn for layer in model.transformer.decoder.layers]
    monkeypatch.setattr(_diagonal_gradients, "_in_one_pass", lambda *_: None)
    method = SequenceAttentionGradient(lambda *a: double(model(*a)), layers)
    expected = SequenceAttentionGradient(lambda *a: 2 * model(*a), layers)
    torch.testing.assert_close(
        method.attribute((source, fed), targets)[0],
        expected.attribute((source, fed), targets)[0],
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [("memory is short", "out of memory"), ("fails", "for another device")],
)
def test_other_errors_of_a_batched_backward_pass_come_through(
    kind: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One output at a time would hide them behind a slow loop."""
    model, double, passes = transformer(), _backward_of(kind), []
    source, fed, targets, _ = batch()
    layers = [layer.multihead_attn for layer in model.transformer.decoder.layers]
    monkeypatch.setattr(_diagonal_gradients, "_in_one_pass", lambda *_: None)
    original = torch.autograd.grad

    def count(*args: Any, **kwargs: Any) -> Any:
        passes.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", count)
    method = SequenceAttentionGradient(lambda *a: double(model(*a)), layers)
    with pytest.raises(RuntimeError, match=message):
        method.attribute((source, fed), targets)
    assert [p["is_grads_batched"] for p in passes] == [True]


def test_replicas_in_threads_of_their_own() -> None:
    """As DataParallel runs them."""
    model = transformer()
    source, fed, targets, _ = batch(outputs=5, examples=5)
    whole = SequenceAttentionGradient(model).attribute((source, fed), targets)
    replicas = Replicated(model, 2)
    found = SequenceAttentionGradient(replicas).attribute((source, fed), targets)
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("padded", [False, True])
def test_causal_self_attention_needs_no_batches(
    padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformer()
    source, fed, targets, padding = batch(outputs=5)
    batches = _count_batches(monkeypatch)
    args = (fed, padding) if padded else (fed,)
    SequenceAttentionGradient(model).attribute(source, targets, args)
    assert not batches
