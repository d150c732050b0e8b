"""Answer rows from a prefilled cache, against the same rows of a materialised pass."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from captum.attr import TextTokenInput
from torch import Tensor

from captum_attngrad import LayerAttentionGradient, LLMAttentionGradient
from tests.architectures.softmaxes import softmax_weights

transformers = pytest.importorskip("transformers")

VOCABULARY = 97
PROMPT, ANSWER = 13, 5
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
_GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {},
    "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {"head_dim": 8},
    "MistralForCausalLM": {"sliding_window": 6},
    "Gemma2ForCausalLM": {"head_dim": 8, "sliding_window": 6},
    "Gemma3ForCausalLM": {"head_dim": 8, "sliding_window": 6},
    "GPT2LMHeadModel": _GPT,
    "GPTNeoXForCausalLM": {"num_key_value_heads": 4},
    "BloomForCausalLM": {"n_layer": 3, "n_head": 4},
    "FalconForCausalLM": {"alibi": True, "multi_query": False},
    "Phi3ForCausalLM": {},
    "Olmo2ForCausalLM": {},
    "Qwen3MoeForCausalLM": {"head_dim": 8, **_EXPERTS},
    "GptOssForCausalLM": {
        "head_dim": 8,
        "num_local_experts": 4,
        "sliding_window": 6,
        "layer_types": _SLIDING,
    },
    "DeepseekV3ForCausalLM": {
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 16,
        "num_key_value_heads": 4,
    },
}
HYBRIDS: dict[str, dict[str, Any]] = {
    "Qwen3NextForCausalLM": {
        "head_dim": 8,
        **_EXPERTS,
        "shared_expert_intermediate_size": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    },
    "JambaForCausalLM": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "num_experts": 2,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
}


EAGER_ONLY = ("Gemma2ForCausalLM", "BloomForCausalLM", "GptOssForCausalLM")
RUNS = [
    (name, implementation)
    for name in FAMILIES
    for implementation in ("eager", "sdpa")
    if implementation == "eager" or name not in EAGER_ONLY
]


class Numbers:
    """A tokenizer for texts of token ids."""

    def encode(
        self,
        text: str,
        add_special_tokens: bool = True,
        return_tensors: str | None = None,
    ) -> Any:
        ids = [int(word) for word in text.split()]
        return ids if return_tensors is None else torch.tensor([ids])

    def decode(self, ids: Tensor) -> str:
        return " ".join(str(i) for i in ids.reshape(-1).tolist())

    def convert_ids_to_tokens(self, ids: Any) -> list[str]:
        return [str(int(i)) for i in ids]

    def convert_tokens_to_ids(self, tokens: Any) -> list[int]:
        return [int(token) for token in tokens]


def build(name: str, implementation: str) -> Any:
    cls = getattr(transformers, name, None)
    if cls is None:
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if options.keys() & {"n_embd"} or "n_layer" in {**FAMILIES, **HYBRIDS}[name]:
        options = {k: v for k, v in options.items() if not k.startswith(("num_", "i"))}
    config_class = cls.config_class
    if name == "Gemma3ForCausalLM":
        config_class = transformers.Gemma3TextConfig
    config = config_class(**{**options, **{**FAMILIES, **HYBRIDS}[name]})
    torch.manual_seed(0)
    model = cls._from_config(config, attn_implementation=implementation)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the fused one has no float64
    return model.eval().double()


@pytest.fixture(autouse=True)
def _quiet_transformers() -> Any:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(level)


def tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (PROMPT + ANSWER,), generator=generator)
    return ids[None, :PROMPT], ids[PROMPT:]


def truth(name: str) -> Tensor:
    """``(answer tokens, prompt tokens)``: the sum of A * dA over the answer rows, from
    the softmaxes of the eager model."""
    model = build(name, "eager")
    prompt, answer = tokens()
    text = torch.cat([prompt, answer[None, :-1]], dim=1)
    modules = [
        module
        for name, module in model.named_modules()
        if name.endswith(("attn", "attention", "self_attention"))
        and not name.endswith("linear_attn")
    ]
    rows = []
    for t, token in enumerate(answer):

        def score(at: int = PROMPT - 1 + t, token: int = int(token)) -> Tensor:
            return model(input_ids=text, use_cache=False).logits[:, at, token]

        total = torch.zeros(PROMPT, dtype=torch.float64)
        for weights, gradient in softmax_weights(modules, score):
            pairs = (weights * gradient).sum((0, 1))
            total += pairs[PROMPT - 1 :, :PROMPT].sum(0).double()
        rows.append(total)
    return torch.stack(rows)


def full_pass(model: Any) -> Tensor:
    """The same from the maps of a pass with a graph through all of the text."""
    prompt, answer = tokens()
    text = torch.cat([prompt, answer[None, :-1]], dim=1)
    rows = []
    for t, token in enumerate(answer):
        maps = LayerAttentionGradient(
            lambda ids: model(ids, use_cache=False).logits,
            [layer.self_attention for layer in model.transformer.h],
            multiply_by_attention=True,
        ).attribute(text, (PROMPT - 1 + t, int(token)))
        total = torch.stack([m.sum((0, 1)) for m in maps]).sum(0)
        rows.append(total[PROMPT - 1 :, :PROMPT].sum(0))
    return torch.stack(rows)


def prompt_input() -> TextTokenInput:
    return TextTokenInput(Numbers().decode(tokens()[0]), Numbers())


def close(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    assert expected.abs().max() > 0
    # Many eager models compute their softmax in float32.
    tolerance = 2e-6 * float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "implementation"), RUNS)
def test_exact_from_the_cache(name: str, implementation: str) -> None:
    llm = LLMAttentionGradient(build(name, implementation), Numbers(), "logit")
    expected = truth(name)
    if (name, implementation) == ("FalconForCausalLM", "sdpa"):
        # It scales its position bias in another way than the eager model.
        expected = full_pass(llm.model)
    result = llm.attribute(prompt_input(), tokens()[1])
    close(result.token_attr, expected)
    close(result.seq_attr, expected.sum(0))
    whole = llm.attribute(prompt_input(), tokens()[1], per_token=False)
    close(whole.seq_attr, expected.sum(0))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", HYBRIDS)
def test_caches_that_are_no_tokens_are_not_used(name: str, implementation: str) -> None:
    llm = LLMAttentionGradient(build(name, implementation), Numbers(), "logit")
    with pytest.warns(UserWarning, match="differentiated.*since its cache"):
        result = llm.attribute(prompt_input(), tokens()[1])
    close(result.token_attr, truth(name))
    with pytest.raises(ValueError, match=r"cannot be read in advance: its cache has"):
        llm.prefill(prompt_input())


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Gemma3ForCausalLM"])
def test_many_answers_to_a_prompt_that_is_read_once(name: str) -> None:
    model = build(name, "sdpa")
    llm = LLMAttentionGradient(model, Numbers(), "logit")
    read = llm.prefill(prompt_input())
    before = copy.deepcopy(read.cache)
    lengths: list[int] = []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]),
        with_kwargs=True,
    )
    answer = tokens()[1]
    for target in (answer, answer.flip(0), answer[:1]):
        expected = llm.attribute(prompt_input(), target)
        lengths.clear()
        found = llm.attribute(read, target)
        assert max(lengths) == len(target)
        torch.testing.assert_close(found.token_attr, expected.token_attr)
    generated = llm.attribute(read, gen_args={"max_new_tokens": 4, "do_sample": False})
    again = llm.attribute(
        prompt_input(), gen_args={"max_new_tokens": 4, "do_sample": False}
    )
    assert generated.output_tokens == again.output_tokens
    torch.testing.assert_close(generated.token_attr, again.token_attr)
    for layer, layer_before in zip(read.cache.layers, before.layers, strict=True):
        assert torch.equal(layer.keys, layer_before.keys)


def test_a_static_cache() -> None:
    model = build("LlamaForCausalLM", "sdpa")
    llm = LLMAttentionGradient(model, Numbers(), "logit")
    cache = transformers.StaticCache(config=model.config, max_cache_len=32)
    read = llm.prefill(prompt_input(), cache)
    for _ in range(2):
        result = llm.attribute(read, tokens()[1])
        close(result.token_attr, truth("LlamaForCausalLM"))


def test_a_prompt_of_one_token() -> None:
    llm = LLMAttentionGradient(build("LlamaForCausalLM", "sdpa"), Numbers())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = llm.attribute("5", tokens()[1])
    assert result.token_attr is not None
    assert result.token_attr.shape == (ANSWER, 1)
    with pytest.raises(ValueError, match="a prompt of one token"):
        llm.prefill("5")


@pytest.mark.parametrize("query", ["all", -1, 3])
def test_other_rows_of_a_prompt_that_is_read(query: Any) -> None:
    llm = LLMAttentionGradient(build("LlamaForCausalLM", "sdpa"), Numbers())
    read = llm.prefill(prompt_input())
    found = llm.attribute(read, tokens()[1], query=query)
    expected = llm.attribute(prompt_input(), tokens()[1], query=query)
    torch.testing.assert_close(found.token_attr, expected.token_attr)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = build("LlamaForCausalLM", "sdpa").to(dtype)
    result = LLMAttentionGradient(model, Numbers(), "logit").attribute(
        prompt_input(), tokens()[1]
    )
    assert result.seq_attr.dtype == torch.float32
    expected = truth("LlamaForCausalLM").sum(0)
    assert (result.seq_attr - expected).abs().max() < 0.05 * expected.abs().max()
