"""More architectures: how each is built, and what is expected of its keys."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = 48

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 4}
SEQ2SEQ: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
IMAGE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "image_size": 8,
    "patch_size": 4,
}
SELF = r"layers\.\d\.self_attn"
ENCODER_DECODER = {
    "encoder": r"encoder\.layers\.\d\.self_attn",
    "decoder": r"decoder\.layers\.\d\.self_attn",
    "cross": r"decoder\.layers\.\d\.encoder_attn",
}

# Weights as the model's softmax gives them, as (batch, heads, queries, keys).
Arrange = Callable[[Tensor, int], Tensor]


def plain(weights: Tensor, batch: int) -> Tensor:
    return weights


def folded(weights: Tensor, batch: int) -> Tensor:
    """Of ``(batch * heads, queries, keys)``."""
    return weights.unflatten(0, (batch, -1))


@dataclass(frozen=True)
class Case:
    """One architecture.

    Args:
        name: what the table calls it.
        model: name of its class in transformers; the config's is its own.
        config: the configuration; callables are called for parts of it.
        layers: for each group of attention modules with the same keys, a regular
            expression that finds them.
        inputs: the model's inputs: tokens, patches and so on, see ``arguments``.
        keys: names of the statuses that keys may have, by group; "" is for all.
        sums: whether scores are one for each token, so that they can be summed.
        implementations: attention implementations that the family can use.
        interface: whether it dispatches through transformers' attention interface.
        arrange: layout of the eager softmax.
        output: what is read off the model's output.
        coincide: the number of examples that is also another size; tokens are as many.
        float32: whether the eager softmax is in float32 in every dtype.
        remark: goes into the table.
    """

    name: str
    model: str
    config: dict[str, Any]
    layers: dict[str, str]
    inputs: dict[str, Any] = field(default_factory=lambda: {"input_ids": 7})
    keys: dict[str, str] = field(default_factory=lambda: {"": "TOKENS"})
    sums: bool = True
    implementations: tuple[str, ...] = ("sdpa", "eager")
    interface: bool = True
    arrange: Arrange = plain
    output: tuple[str, ...] = ("last_hidden_state",)
    coincide: int = 4
    float32: bool = False
    remark: str = ""

    def __str__(self) -> str:
        return self.name

    def build(self, implementation: str, dtype: torch.dtype = torch.float64) -> Run:
        import transformers

        cls = getattr(transformers, self.model)
        config = cls.config_class(
            **{k: v() if callable(v) else v for k, v in self.config.items()}
        )
        if hasattr(config, "num_experts") or hasattr(config, "n_routed_experts"):
            config._experts_implementation = "eager"
        config._attn_implementation = implementation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = cls(config).to(dtype).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                # Far from the tiny weights of an untrained model.
                noise = torch.randn(parameter.shape, generator=generator)
                spread, kept = (
                    (0.3, 0) if parameter.dim() > 1 else (0.1, parameter.clone())
                )
                parameter.copy_(kept + spread * noise)
        return Run(model, self)

    def arguments(
        self, batch: int, dtype: torch.dtype = torch.float64, length: int | None = None
    ) -> tuple[Any, ...]:
        """An integer stands for so many tokens, a tuple for the shape of an input of
        numbers, and a function makes an input from the number of examples."""
        generator = torch.Generator().manual_seed(2)
        made: list[Any] = []
        for shape in self.inputs.values():
            if isinstance(shape, int):
                size = (batch, shape if length is None else length)
                made.append(torch.randint(4, VOCABULARY, size, generator=generator))
            elif callable(shape):
                value = shape(batch)
                floats = isinstance(value, Tensor) and value.is_floating_point()
                made.append(value.to(dtype) if floats else value)
            else:
                image = torch.randn((batch, *shape), generator=generator)
                made.append(image.to(dtype))
        return tuple(made)


class Run(nn.Module):
    """The model as an explainer sees it: tensors in, two numbers per example out, to
    which every position contributes."""

    def __init__(self, model: nn.Module, case: Case) -> None:
        super().__init__()
        self.model, self.case = model, case

    def forward(self, *arguments: Any) -> Tensor:
        output = self.model(**dict(zip(self.case.inputs, arguments, strict=True)))
        parts = [operator.attrgetter(name)(output) for name in self.case.output]
        numbers = torch.cat([part.flatten(1) for part in parts], dim=1)
        generator = torch.Generator().manual_seed(3)
        readout = torch.randn(numbers.shape[1], 2, generator=generator)
        return numbers @ readout.to(numbers)

    def modules_of(self, group: str) -> list[nn.Module]:
        pattern = self.case.layers[group]
        return [m for n, m in self.model.named_modules() if re.fullmatch(pattern, n)]
