"""T5, BART and Marian against materialised weights, one output at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import AttentionGradient, SequenceAttentionGradient
from captum_attngrad.attr.sequence import _diagonal_gradients
from tests.architectures.reference import NAME, materialised, register

transformers = pytest.importorskip("transformers")

EXAMPLES, CLASSES = 3, 30
_SEQ2SEQ = {
    "vocab_size": CLASSES,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": None,
}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "T5": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": CLASSES,
            "d_model": 16,
            "d_kv": 4,
            "d_ff": 20,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        "EncDecAttention",
    ),
    "BART": ("BartForConditionalGeneration", _SEQ2SEQ, "encoder_attn"),
    "Marian": ("MarianMTModel", {**_SEQ2SEQ, "decoder_vocab_size": 30}, "encoder_attn"),
}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    register()


def build(name: str, implementation: str, dtype: torch.dtype = torch.float64) -> Any:
    cls, settings, _ = MODELS[name]
    config = getattr(transformers, cls).config_class(**settings)
    config._attn_implementation = implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, cls)(config).to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            spread = 0.3 if parameter.dim() > 1 else 0.1
            kept = 0 if parameter.dim() > 1 else parameter
            parameter.copy_(kept + spread * noise)
    return model


def ids(source: int = 7, outputs: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)

    def some(length: int) -> Tensor:
        return torch.randint(3, CLASSES, (EXAMPLES, length), generator=generator)

    mask = torch.arange(source) < torch.tensor([source, source - 2, 2]).unsqueeze(1)
    return some(source), mask.long(), some(outputs), some(outputs)


def truth_of(
    name: str, source: Tensor, mask: Tensor, fed: Tensor, targets: Tensor
) -> Tensor:
    """One forward and one backward pass for each output, over weights that our own
    attention function keeps."""
    model, rows = build(name, NAME), []
    for t in range(targets.shape[1]):

        def score(t: int = t) -> Tensor:
            logits = model(source, mask, fed).logits[:, t]
            return logits.gather(1, targets[:, t : t + 1])

        calls = [
            call
            for module, found in materialised(model, score).items()
            if module.endswith(MODELS[name][2])
            for call in found
        ]
        assert len(calls) == 2
        rows.append(sum(c.scores(False, False)[:, :, t].sum(1) for c in calls))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("lengths", [(7, 5), (5, 5), (6, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_each_output_has_the_gradient_of_its_own_score(
    name: str,
    lengths: tuple[int, int],
    padded: bool,
    implementation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, mask, fed, targets = ids(*lengths)
    mask = mask if padded else torch.ones_like(mask)
    truth = truth_of(name, source, mask, fed, targets)
    model = build(name, implementation)

    def no_batches(*_: Any) -> None:
        raise AssertionError("two backward passes are enough")

    if lengths[1] > 2:
        monkeypatch.setattr(_diagonal_gradients, "_in_batches", no_batches)
    method = SequenceAttentionGradient(model)
    found = method.attribute(source, targets, (mask, fed))
    torch.testing.assert_close(found, truth)
    assert float(truth.abs().max()) > 0.01
    # The function form, with the modules named.
    layers = [m for n, m in model.named_modules() if n.endswith(MODELS[name][2])]
    method = SequenceAttentionGradient(lambda *a: model(*a).logits, layers)
    (found,) = method.attribute((source, mask, fed), targets)
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_batches_give_the_same(
    name: str, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_diagonal_gradients, "_in_one_pass", lambda *_: None)
    source, mask, fed, targets = ids()
    truth = truth_of(name, source, mask, fed, targets)
    method = SequenceAttentionGradient(build(name, implementation))
    for rows in (None, 2, 9):
        found = method.attribute(source, targets, (mask, fed), internal_batch_size=rows)
        torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_the_whole_decoder_as_layer_means_its_cross_attention(
    name: str, implementation: str
) -> None:
    source, mask, fed, targets = ids(5, 5)
    model = build(name, implementation)
    whole = SequenceAttentionGradient(model).attribute(source, targets, (mask, fed))
    decoder = model.decoder if name == "T5" else model.model.decoder
    found = SequenceAttentionGradient(model, decoder).attribute(
        source, targets, (mask, fed)
    )
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_smaller_dtypes(name: str, dtype: torch.dtype) -> None:
    source, mask, fed, targets = ids()
    truth = truth_of(name, source, mask, fed, targets)
    method = SequenceAttentionGradient(build(name, "sdpa", dtype))
    found = method.attribute(source, targets, (mask, fed))
    assert found.dtype == torch.float32
    error = float((found - truth).norm() / truth.norm())
    assert error < (1e-4 if dtype == torch.float32 else 0.1)


_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": (
        "GPT2LMHeadModel",
        {"vocab_size": CLASSES, "n_embd": 16, "n_layer": 2, "n_head": 4},
    ),
    "Llama": (  # grouped queries
        "LlamaForCausalLM",
        {
            "vocab_size": CLASSES,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 20,
        },
    ),
}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", _DECODERS)
def test_a_decoder_only_model_explains_the_positions_before(
    name: str, implementation: str
) -> None:
    cls, settings = _DECODERS[name]
    config = getattr(transformers, cls).config_class(**settings)
    config._attn_implementation = implementation
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, cls)(config).double().eval()
    text, _, _, _ = ids()
    fed, targets = text[:, :-1], text[:, 1:]

    def logits(fed: Tensor) -> Tensor:
        return model(fed, use_cache=False).logits

    found = SequenceAttentionGradient(logits, model).attribute(fed, targets)
    assert found.shape == (EXAMPLES, 6, 6)
    assert bool((found.triu(1) == 0).all())
    # One forward and one backward pass for each output, and its row alone.
    single = AttentionGradient(logits, model)
    for t in range(6):
        target = [(t, int(k)) for k in targets[:, t]]
        row = single.attribute(fed, target, query=t)
        torch.testing.assert_close(found[:, t], row)
