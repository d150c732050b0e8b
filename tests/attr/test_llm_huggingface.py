"""Attention gradient of answers: Hugging Face models and tokenizers."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from captum.attr import (
    FeatureAblation,
    LayerGradientXActivation,
    LLMAttribution,
    LLMGradientAttribution,
    TextTemplateInput,
    TextTokenInput,
)
from torch import Tensor, nn

from captum_attngrad import AttentionGradient, LLMAttentionGradient

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from tests.architectures import reference  # noqa: E402

reference.register()

# Byte-level pieces are learned from these; what is asked about holds other words too.
SENTENCES = [
    "The small dog slept on the warm stone and the cat watched the dog.",
    "A grey cat ran to the house, and the old house was warm.",
    "Nobody saw the bird that sang on the roof of the house.",
]
PROMPT = "The grey bird watched the zebra 🦓 on"
ANSWER = " the stone zebra"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(SENTENCES, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


_SMALL = {
    "vocab_size": 330,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": (
        "GPT2LMHeadModel",
        {
            "vocab_size": 330,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "Llama": ("LlamaForCausalLM", _SMALL),
    "Qwen2": ("Qwen2ForCausalLM", _SMALL),
    "Qwen3": ("Qwen3ForCausalLM", {**_SMALL, "head_dim": 8}),
}


def build(family: str, attention: str, dtype: torch.dtype = torch.float64) -> Any:
    name, options = CONFIGS[family]
    cls = getattr(transformers, name)
    config = cls.config_class(**options)
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = cls(config).to(torch.float64).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.dim() > 1 else 0.1
            noise = spread * torch.randn_like(parameter)
            parameter.copy_(noise if parameter.dim() > 1 else parameter + noise)
    return model.to(dtype)


def truth(
    family: str, prompt: list[int], answer: list[int], multiply: bool, center: bool
) -> Tensor:
    """``(answer tokens, prompt tokens)``: for each token of the answer a forward pass
    over what precedes it, with materialised weights."""
    model = build(family, reference.NAME)
    rows = []
    for t, token in enumerate(answer):
        ids = torch.tensor([prompt + answer[:t]])

        def score(ids: Tensor = ids, token: int = token) -> Tensor:
            return model(ids, use_cache=False).logits[0, -1].log_softmax(-1)[token]

        found = reference.materialised(model, score)
        assert len(found) == 2
        calls = [call for calls in found.values() for call in calls]
        maps = [call.scores(multiply, center) for call in calls]
        rows.append(sum(m.sum((0, 1, 2)) for m in maps)[: len(prompt)])
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("multiply", "center"), [(False, False), (True, False), (True, True)]
)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", CONFIGS)
def test_exact(
    family: str, attention: str, multiply: bool, center: bool, tokenizer: Any
) -> None:
    prompt = tokenizer.encode(PROMPT)
    answer = tokenizer.encode(ANSWER)
    assert len(answer) > 3
    expected = truth(family, prompt, answer, multiply, center)
    assert expected.abs().mean() > 1e-3
    # The softmax of these eager models is in float32, and so are their masks.
    double = attention == "sdpa" or family == "GPT-2"
    model = build(family, attention, torch.float64 if double else torch.float32)
    method = AttentionGradient(model, multiply_by_attention=multiply, center=center)
    llm = LLMAttentionGradient(method, tokenizer, attr_target="log_prob")
    tolerance = 1e-9 if double else 1e-4
    result = llm.attribute(PROMPT, ANSWER, query="all")
    torch.testing.assert_close(
        result.token_attr.double(), expected, rtol=tolerance, atol=tolerance
    )
    torch.testing.assert_close(result.seq_attr, result.token_attr.sum(0))


def test_a_template_of_pieces(tokenizer: Any) -> None:
    """Words of several pieces, an emoji of several tokens, spaces inside tokens."""
    model = build("Llama", "sdpa")
    llm = LLMAttentionGradient(AttentionGradient(model), tokenizer)
    by_token = llm.attribute(PROMPT, ANSWER).token_attr
    encoded = tokenizer(PROMPT, return_offsets_mapping=True)
    values = ["grey", "zebra", "🦓", "on"]
    inp = TextTemplateInput("The {} bird watched the {} {} {}", values)
    result = llm.attribute(inp, ANSWER)
    for i, value in enumerate(values):
        start = PROMPT.index(f" {value}") + 1
        own = [
            k
            for k, (first, last) in enumerate(encoded["offset_mapping"])
            if first < start + len(value) and last > start
        ]
        text = tokenizer.decode([encoded["input_ids"][k] for k in own])
        assert text.strip() == value
        assert len(own) > 1 or value in ("grey", "on")
        torch.testing.assert_close(result.token_attr[:, i], by_token[:, own].sum(1))


def test_as_captums_own_classes_show_it(tokenizer: Any) -> None:
    model = build("Llama", "sdpa", torch.float32)
    ours = LLMAttentionGradient(AttentionGradient(model), tokenizer)
    layer = LayerGradientXActivation(model, model.model.embed_tokens)
    theirs = LLMGradientAttribution(layer, tokenizer)
    inp = TextTokenInput(PROMPT, tokenizer)
    answer = torch.tensor(tokenizer.encode(ANSWER))
    for target in (ANSWER, answer):
        expected = theirs.attribute(inp, target)
        result = ours.attribute(inp, target)
        assert isinstance(result, type(expected))
        assert result.input_tokens == expected.input_tokens
        assert result.output_tokens == expected.output_tokens
        assert result.token_attr.shape == expected.token_attr.shape
        assert result.seq_attr.shape == expected.seq_attr.shape
        assert result.token_attr.dtype == expected.token_attr.dtype
    template = TextTemplateInput(
        "The {} {} watched the {}", ["old", "cat", "dog"], mask=[0, 0, 1]
    )
    ablation = LLMAttribution(FeatureAblation(model), tokenizer)
    expected = ablation.attribute(template, ANSWER, use_cached_outputs=False)
    result = ours.attribute(template, ANSWER)
    assert result.input_tokens == expected.input_tokens
    assert result.token_attr.shape == expected.token_attr.shape
    torch.testing.assert_close(result.token_attr[:, 0], result.token_attr[:, 1])


def test_what_the_model_generates(tokenizer: Any) -> None:
    model = build("GPT-2", "sdpa")
    llm = LLMAttentionGradient(AttentionGradient(model), tokenizer)
    ids = tokenizer.encode(PROMPT, return_tensors="pt")
    for options in (None, {"max_new_tokens": 4, "do_sample": False}):
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            **(options or {"max_new_tokens": 25, "do_sample": False}),
        )[0, ids.shape[1] :]
        result = llm.attribute(PROMPT, gen_args=options)
        given = llm.attribute(PROMPT, expected)
        torch.testing.assert_close(result.token_attr, given.token_attr)
        assert len(result.output_tokens) == len(expected)
        result.plot_token_attr()
        result.plot_seq_attr()
        plt.close("all")


def test_only_the_logits_of_the_answer(tokenizer: Any) -> None:
    model = build("Qwen2", "sdpa")
    shapes: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda *a: shapes.append(tuple(a[2].shape)))
    llm = LLMAttentionGradient(AttentionGradient(model), tokenizer)
    for query, prefill in (("answer", [(1, 1, 330)]), ("all", [])):
        llm.attribute(PROMPT, ANSWER, query=query)  # the layout is proved once
        shapes.clear()
        result = llm.attribute(PROMPT, ANSWER, query=query)
        assert shapes == [*prefill, (1, len(result.output_tokens), 330)]


def test_a_model_that_answers_in_data_parallel(tokenizer: Any) -> None:
    model = build("Llama", "sdpa")
    expected = LLMAttentionGradient(AttentionGradient(model), tokenizer)
    wrapped = AttentionGradient(nn.DataParallel(model))
    found = LLMAttentionGradient(wrapped, tokenizer)
    torch.testing.assert_close(
        found.attribute(PROMPT, ANSWER).token_attr,
        expected.attribute(PROMPT, ANSWER).token_attr,
    )


def test_encoder_decoder_models_are_refused(tokenizer: Any) -> None:
    config = transformers.T5Config(
        vocab_size=48, d_model=16, d_kv=4, d_ff=20, num_layers=1, num_heads=4
    )
    model = transformers.T5ForConditionalGeneration(config)
    with pytest.raises(ValueError, match="is an encoder-decoder model"):
        LLMAttentionGradient(AttentionGradient(model), tokenizer)
