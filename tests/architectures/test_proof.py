"""What the runs that prove layouts must not do: misjudge, repeat or change things."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    LayerAttentionGradient,
    capture_attention,
)
from captum_attngrad.attr import AttentionRelevance, AttentionRollout
from captum_attngrad.attr._core.run import Runner
from captum_attngrad.capture._proof import layouts
from captum_attngrad.capture.keys import KeyStatus
from tests.architectures.cases import SEQ2SEQ, Case
from tests.architectures.cases_seq2seq import SEQ2SEQ_CASES
from tests.architectures.cases_text import TEXT
from tests.architectures.cases_vision import VISION
from tests.architectures.families import FAMILIES

transformers = pytest.importorskip("transformers")

_CASES = {case.name: case for case in (*TEXT, *SEQ2SEQ_CASES)}
_PLAIN = (KeyStatus.TOKENS, KeyStatus.MIXED)


def statuses(model: nn.Module, arguments: Any, more: Any = None) -> set[KeyStatus]:
    record = Runner(model, [model]).record(arguments, more)
    return {call.keys_are.status for call in record}


@pytest.mark.parametrize("name", ["Qwen3 MoE", "DeepSeek-V3", "Phi-3", "OPT"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rounding_refutes_nothing(name: str, dtype: torch.dtype) -> None:
    """Mixtures of experts multiply other matrices when one example changes."""
    run = _CASES[name].build("sdpa", dtype)
    for batch in (1, 4):
        assert statuses(run, _CASES[name].arguments(batch, dtype, 24)) <= set(_PLAIN)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_rounding_that_cancellation_enlarges(implementation: str) -> None:
    """Rounding of 1e-7 was 1e-4 of one mixture that happened to be small."""
    arguments = {
        "vocab_size": 99,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 4,
        "attn_implementation": implementation,
        "pad_token_id": 0,
    }
    for seed in range(8):
        torch.manual_seed(seed)
        config = transformers.MixtralConfig(**arguments)
        model = transformers.MixtralForSequenceClassification(config).eval()
        assert statuses(model, torch.randint(1, 99, (3, 9))) <= set(_PLAIN)


@pytest.mark.parametrize("name", ["BERT", "RoBERTa", "DeBERTa-v2", "GPT-2", "Llama"])
def test_padding(name: str) -> None:
    family = next(f for f in FAMILIES if f.name == name)
    run = family.build(family.implementations[0])
    inputs, mask = family.arguments(padded=True)
    assert statuses(run, inputs, mask) == {KeyStatus.TOKENS}
    assert statuses(run, inputs[2:], mask[2:]) == {KeyStatus.TOKENS}


class Called(nn.Module):
    """A model that is called with keywords of its own."""

    def __init__(self, model: nn.Module, *names: str, **options: Any) -> None:
        super().__init__()
        self.model, self.names, self.options = model, names, options

    def forward(self, *arguments: Any) -> Tensor:
        given = dict(zip(self.names, arguments, strict=True))
        output = self.model(**given, **self.options)
        found: Tensor = output[0].flatten(1).sum(1)
        return found


def test_ways_to_call_a_decoder() -> None:
    model = _CASES["Phi-3"].build("sdpa").model
    ids = torch.randint(4, 40, (3, 6))
    positions = torch.arange(6).expand(3, -1)
    embeddings = model.get_input_embeddings()(ids).detach()
    for run, arguments in (
        (Called(model, "input_ids", use_cache=True), (ids,)),
        (Called(model, "input_ids", "position_ids"), (ids, positions)),
        (Called(model, "inputs_embeds"), (embeddings,)),
        (Called(model, "inputs_embeds", "position_ids"), (embeddings, positions)),
    ):
        assert statuses(run, arguments) == {KeyStatus.TOKENS}


class Table(nn.Module):
    """Embeddings by indexing a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(50, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table[ids]
        return self.attention(x, x, x)[0].sum((1, 2))


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_embeddings_without_an_embedding_layer(batch: int) -> None:
    ids = torch.randint(50, (batch, 6))
    assert statuses(Table(), ids) <= set(_PLAIN)


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.norm = nn.BatchNorm1d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.passes = 0

    def forward(self, ids: Tensor) -> Tensor:
        self.passes += 1
        x = self.norm(self.embedding(ids).mT).mT
        return self.attention(x, x, x)[0].sum((1, 2))


def test_nothing_is_proved_twice() -> None:
    model = Counted().eval()
    method = AttentionGradient(model)
    method.attribute(torch.randint(50, (3, 7)))
    first = model.passes
    for shape in ((3, 7), (3, 9), (5, 11), (2, 4)):
        before = model.passes
        method.attribute(torch.randint(50, shape))
        assert model.passes == before + 1
    assert first <= 6


def test_nothing_changes() -> None:
    model = Counted().eval()
    ids = torch.randint(50, (3, 7))
    before = torch.random.get_rng_state()
    needed = [p.requires_grad for p in model.parameters()]
    AttentionGradient(model).attribute(ids)
    assert torch.equal(before, torch.random.get_rng_state())
    assert needed == [p.requires_grad for p in model.parameters()]


def test_statistics_move_only_with_the_own_forward_pass() -> None:
    model, expected = Counted().train(), Counted().train()
    expected.load_state_dict(model.state_dict())
    ids = torch.randint(50, (1, 7))
    AttentionGradient(model).attribute(ids)
    assert model.passes > 1
    expected(ids)
    for ours, theirs in zip(model.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["Pegasus", "LongT5, local, decoder"])
def test_keys_of_different_texts_of_one_length(name: str) -> None:
    case = dataclasses.replace(_CASES[name], implementations=("eager",))
    run = case.build("eager")
    ids, other = case.arguments(3, length=6)
    for decoder in (other, ids):  # even the same text
        modules = [m[0] for m in (run.modules_of("decoder"), run.modules_of("cross"))]
        with pytest.raises(ValueError, match="attend to different keys"):
            AttentionGradient(run, modules).attribute((ids, decoder), 1)
        for method in (AttentionRollout, AttentionRelevance):
            with pytest.raises(ValueError, match="attend to different keys"):
                method(run, modules).attribute((ids, decoder), 1)


def test_decoder_keys_are_shifted_in_sequence_classification() -> None:
    config = transformers.BartConfig(**{**SEQ2SEQ, "num_labels": 3})
    model = transformers.BartForSequenceClassification(config).double().eval()
    for batch in (1, 3):
        ids = torch.randint(4, 40, (batch, 7))
        ids[:, -1] = 2
        with pytest.raises(ValueError, match=r"different keys .*7 keys.*; 7 keys"):
            AttentionGradient(model).attribute(ids, 1)
        with pytest.raises(ValueError, match="not the tokens of the input in their"):
            AttentionGradient(model, model.model.decoder.layers[0].self_attn).attribute(
                ids, 1
            )
        for method in (AttentionRollout, AttentionRelevance):
            with pytest.raises(ValueError, match=r"different keys|not the tokens"):
                method(model).attribute(ids, 1)
        encoder = model.model.encoder
        assert AttentionGradient(model, encoder).attribute(ids, 1).shape == (batch, 7)


def refused(model: str, layers: str, config: dict[str, Any]) -> Case:
    return Case(model, model, config, {"self": layers}, {"input_ids": 8})


def test_sliding_windows_by_strides_are_refused() -> None:
    config = {**_CASES["RoFormer"].config, "attention_window": [4, 4]}
    case = refused("LongformerModel", r"encoder\.layer\.\d\.attention\.self", config)
    run = case.build("eager")
    for batch in (1, 2):
        with pytest.raises(ValueError, match=r"cannot be followed.*'pad'"):
            AttentionGradient(run).attribute(case.arguments(batch), 1)


def test_a_softmax_by_hand_is_not_found() -> None:
    config = {
        **_CASES["RoFormer"].config,
        "attn_layers": ["local"],
        "attention_head_size": 4,
        "feed_forward_size": 20,
        "axial_pos_embds": False,
        "local_attn_chunk_length": 4,
        "is_decoder": False,
    }
    run = refused("ReformerModel", "", config).build("eager")
    with pytest.raises(ValueError, match="No attention was found in the model"):
        LayerAttentionGradient(run).attribute(torch.randint(4, 40, (2, 8)), 1)


def test_a_cache_that_is_passed_stays_as_it_is() -> None:
    case = _CASES["Phi-3"]
    run = case.build("sdpa")
    ids = torch.randint(4, 40, (2, 9))
    start, end = ids.split((6, 3), dim=1)
    with torch.no_grad():
        cache = run.model(start, use_cache=True).past_key_values
    model = Called(run.model, "input_ids", "past_key_values", use_cache=True)
    scores = AttentionGradient(model).attribute(end, None, (cache,))
    assert scores.shape == (2, 9)
    assert cache.get_seq_length() == 6
    with capture_attention(model) as record, torch.no_grad():
        model(end, cache)
    assert {call.keys_are.proved_by for call in record} == {"proof run"}
    assert cache.get_seq_length() == 9  # the model's own pass


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_images_beside_text_while_capturing(batch: int) -> None:
    case = next(case for case in VISION if case.name == "SigLIP")
    run = case.build("sdpa")
    with capture_attention(run) as record, torch.no_grad():
        run(*case.arguments(batch, length=4))
    found = {call.keys_are.status for call in record if "vision" in call.layer}
    assert found == {KeyStatus.FEATURES}


class Reader:
    """Something that holds a model, as TextModel does."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits

    def log_probabilities(self, ids: Tensor) -> Tensor:
        return self.logits(ids).log_softmax(-1)


def test_what_is_proved_of_a_method_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proofs = []
    find = layouts._find
    monkeypatch.setattr(
        layouts, "_find", lambda *a, **k: proofs.append(a) or find(*a, **k)
    )
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    reader, ids = Reader(model), torch.randint(1, 40, (3, 7))
    layer = model.bert.encoder.layer
    for expected, method in (
        (1, AttentionGradient(reader.logits, [*layer])),
        (1, AttentionGradient(reader.logits, [*layer])),
        (2, AttentionGradient(reader.log_probabilities, [*layer])),
        (3, AttentionGradient(reader.logits, layer[1])),
        (3, AttentionGradient(reader.logits, layer[1])),
        (4, AttentionGradient(Reader(model).logits, layer[1])),
    ):
        method.attribute(ids, 1)
        assert len(proofs) == expected
