"""Tiny random models of the families that people use, each built from its config.

Sizes differ from each other (3 examples, 4 heads, 7 and 5 tokens), so that a mixed-up
dimension cannot go unnoticed.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

EXAMPLES, LENGTH, DECODER_LENGTH = 3, 7, 5
_KEPT = (7, 5, 4)  # tokens of each example that are no padding
_VOCABULARY = 48

_SMALL = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2}
_SEQ2SEQ = {
    "vocab_size": _VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "image_size": 8,
    "patch_size": 4,
}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Args:
        name: what the table calls it.
        model: name of its class in transformers; the config's is its own.
        config: the configuration.
        layers: for each group of attention modules with the same keys, a regular
            expression that finds them in the model.
        inputs: names of the model's inputs.
        implementations: attention implementations that the family can use.
        mask: whether it takes ``attention_mask`` (padding).
        output: what is read off the model's output.
        interface: whether it dispatches through transformers' attention interface.
        sink: whether its softmax has one more column, which is dropped.
        experts: whether it is a mixture of experts.
        float32_softmax: whether its eager softmax is in float32 in every dtype.
        remark: goes into the table.
    """

    name: str
    model: str
    config: dict[str, Any]
    layers: dict[str, str]
    inputs: tuple[str, ...] = ("input_ids",)
    implementations: tuple[str, ...] = ("sdpa", "eager")
    mask: bool = True
    output: tuple[str, ...] = ("last_hidden_state",)
    interface: bool = True
    sink: bool = False
    experts: bool = False
    float32_softmax: bool = False
    remark: str = ""

    def __str__(self) -> str:
        return self.name

    def build(self, implementation: str, dtype: torch.dtype = torch.float64) -> Run:
        import transformers

        cls = getattr(transformers, self.model)
        config = cls.config_class(**self.config)
        if self.experts:
            config._experts_implementation = "eager"
        config._attn_implementation = implementation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = cls(config).to(dtype).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                # Far from the tiny weights of an untrained model, whose attention is
                # the same for all keys.
                noise = torch.randn(
                    parameter.shape, generator=generator, dtype=torch.float64
                )
                spread = 0.3 if parameter.dim() > 1 else 0.1
                kept = 0 if parameter.dim() > 1 else parameter
                parameter.copy_(kept + spread * noise)
        return Run(model, self)

    def arguments(self, padded: bool, dtype: torch.dtype = torch.float64) -> list[Any]:
        generator = torch.Generator().manual_seed(2)
        size = {
            "input_ids": (LENGTH, True),
            "decoder_input_ids": (DECODER_LENGTH, True),
            "pixel_values": ((3, 8, 8), False),
            "input_features": ((8, 2 * LENGTH), False),
        }
        arguments: list[Any] = []
        for name in self.inputs:
            shape, integer = size[name]
            if integer:
                tokens = torch.randint(
                    3, _VOCABULARY, (EXAMPLES, shape), generator=generator
                )
                arguments.append(tokens)
            else:
                image = torch.randn((EXAMPLES, *shape), generator=generator)
                arguments.append(image.to(dtype))
        if self.mask:
            mask = padding_mask()
            arguments.append(mask if padded else torch.ones_like(mask))
        return arguments


def padding_mask() -> Tensor:
    return (torch.arange(LENGTH) < torch.tensor(_KEPT).unsqueeze(1)).long()


class Run(nn.Module):
    """The model as an explainer sees it: tensors in, three numbers per example out,
    to which every position contributes."""

    def __init__(self, model: nn.Module, family: Family) -> None:
        super().__init__()
        self.model = model
        self.family = family
        self.options: dict[str, Any] = {}
        if "use_cache" in inspect.signature(model.forward).parameters:
            self.options["use_cache"] = False

    def forward(self, *arguments: Any) -> Tensor:
        names = (*self.family.inputs, "attention_mask")[: len(arguments)]
        output = self.model(**dict(zip(names, arguments, strict=True)), **self.options)
        parts = [operator.attrgetter(name)(output) for name in self.family.output]
        numbers = torch.cat([part.flatten(1) for part in parts], dim=1)
        generator = torch.Generator().manual_seed(3)
        readout = torch.randn(numbers.shape[1], 3, generator=generator)
        return numbers @ readout.to(numbers)

    def attention_names(self, group: str) -> list[str]:
        pattern = self.family.layers[group]
        return [n for n, _ in self.model.named_modules() if re.fullmatch(pattern, n)]

    def attention_modules(self, group: str) -> list[nn.Module]:
        return [self.model.get_submodule(n) for n in self.attention_names(group)]


_ENCODER_DECODER_LAYERS = {
    "encoder": r"encoder\.layers\.\d\.self_attn",
    "decoder": r"decoder\.layers\.\d\.self_attn",
    "cross": r"decoder\.layers\.\d\.encoder_attn",
}

FAMILIES: Sequence[Family] = (
    Family(
        "BERT",
        "BertModel",
        _SMALL,
        {"self": r"encoder\.layer\.\d\.attention\.self"},
    ),
    Family(
        "RoBERTa",
        "RobertaModel",
        _SMALL,
        {"self": r"encoder\.layer\.\d\.attention\.self"},
    ),
    Family(
        "DistilBERT",
        "DistilBertModel",
        {
            "vocab_size": _VOCABULARY,
            "dim": 16,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 20,
            "max_position_embeddings": 32,
        },
        {"self": r"transformer\.layer\.\d\.attention"},
    ),
    Family(
        "ALBERT",
        "AlbertModel",
        {**_SMALL, "embedding_size": 8, "num_hidden_layers": 3},
        {"self": r"encoder\.albert_layer_groups\.0\.albert_layers\.0\.attention"},
        remark="one shared module, three calls, joined along the queries",
    ),
    Family(
        "ELECTRA",
        "ElectraModel",
        {**_SMALL, "embedding_size": 8},
        {"self": r"encoder\.layer\.\d\.attention\.self"},
    ),
    Family(
        "ModernBERT",
        "ModernBertModel",
        {
            **_SMALL,
            "num_hidden_layers": 3,
            "layer_types": [
                "full_attention",
                "sliding_attention",
                "sliding_attention",
            ],
            "local_attention": 4,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
        {"self": r"layers\.\d\.attn"},
        float32_softmax=True,
        remark="rotary, global and sliding-window layers",
    ),
    Family(
        "DeBERTa-v2",
        "DebertaV2Model",
        {
            **_SMALL,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "position_buckets": 4,
            "max_relative_positions": 8,
        },
        {"self": r"encoder\.layer\.\d\.attention\.self"},
        implementations=("eager",),
        interface=False,
        remark="disentangled positions",
    ),
    Family(
        "GPT-2",
        "GPT2Model",
        {
            "vocab_size": _VOCABULARY,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        {"self": r"h\.\d\.attn"},
        remark="causal",
    ),
    Family(
        "Llama",
        "LlamaModel",
        _GROUPED,
        {"self": r"layers\.\d\.self_attn"},
        float32_softmax=True,
        remark="causal, grouped-query, rotary",
    ),
    Family(
        "Qwen2",
        "Qwen2Model",
        _GROUPED,
        {"self": r"layers\.\d\.self_attn"},
        float32_softmax=True,
        remark="causal, grouped-query, rotary",
    ),
    Family(
        "Gemma2",
        "Gemma2Model",
        {
            **_GROUPED,
            "head_dim": 4,
            "query_pre_attn_scalar": 4,
            "attn_logit_softcapping": 1.5,
            "sliding_window": 3,
        },
        {"self": r"layers\.\d\.self_attn"},
        implementations=("eager",),
        float32_softmax=True,
        remark="soft-capped scores, sliding window",
    ),
    Family(
        "Mistral",
        "MistralModel",
        {**_GROUPED, "sliding_window": 3},
        {"self": r"layers\.\d\.self_attn"},
        float32_softmax=True,
        remark="causal, grouped-query, sliding window",
    ),
    Family(
        "Mixtral",
        "MixtralModel",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
        {"self": r"layers\.\d\.self_attn"},
        experts=True,
        float32_softmax=True,
        remark="mixture of experts: routers are not attention",
    ),
    Family(
        "gpt-oss",
        "GptOssModel",
        {
            **_GROUPED,
            "head_dim": 4,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 3,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        {"self": r"layers\.\d\.self_attn"},
        implementations=("eager",),
        sink=True,
        experts=True,
        remark="attention sink, mixture of experts",
    ),
    Family(
        "T5",
        "T5Model",
        {
            "vocab_size": _VOCABULARY,
            "d_model": 16,
            "d_kv": 4,
            "d_ff": 20,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        {
            "encoder": r"encoder\.block\.\d\.layer\.0\.SelfAttention",
            "decoder": r"decoder\.block\.\d\.layer\.0\.SelfAttention",
            "cross": r"decoder\.block\.\d\.layer\.1\.EncDecAttention",
        },
        inputs=("input_ids", "decoder_input_ids"),
        remark="relative position bias; encoder, decoder and cross-attention",
    ),
    Family(
        "BART",
        "BartModel",
        {**_SEQ2SEQ, "max_position_embeddings": 32},
        _ENCODER_DECODER_LAYERS,
        inputs=("input_ids", "decoder_input_ids"),
        remark="encoder, decoder and cross-attention",
    ),
    Family(
        "ViT",
        "ViTModel",
        _IMAGE,
        {"self": r"layers\.\d\.attention"},
        inputs=("pixel_values",),
        mask=False,
        float32_softmax=True,
    ),
    Family(
        "CLIP",
        "CLIPModel",
        {
            "text_config": {**_SMALL, "eos_token_id": _VOCABULARY - 1},
            "vision_config": _IMAGE,
            "projection_dim": 8,
        },
        {
            "text": r"text_model\.encoder\.layers\.\d\.self_attn",
            "vision": r"vision_model\.encoder\.layers\.\d\.self_attn",
        },
        inputs=("input_ids", "pixel_values"),
        output=(
            "text_model_output.last_hidden_state",
            "vision_model_output.last_hidden_state",
        ),
        remark="text and image towers",
        float32_softmax=True,
    ),
    Family(
        "Whisper",
        "WhisperModel",
        {
            **_SEQ2SEQ,
            "num_mel_bins": 8,
            "max_source_positions": LENGTH,
            "max_target_positions": 16,
        },
        _ENCODER_DECODER_LAYERS,
        inputs=("input_features", "decoder_input_ids"),
        mask=False,
        remark="encoder, decoder and cross-attention",
    ),
)
