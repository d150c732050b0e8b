"""What is measured: the same model and the same score, explained in several ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import (
    LayerGradientXActivation,
    LayerIntegratedGradients,
    Lime,
    Occlusion,
)
from torch import Tensor

from captum_attngrad import AttentionGradient

# The shape of all-MiniLM-L6-v2: 22.7 million parameters.
SHAPE = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
}
IG_STEPS = 50
LIME_SAMPLES = 500
TARGET = 1

Subject = Callable[[], Any]


def build_model(length: int, attention: str) -> torch.nn.Module:
    """A BERT with random weights, for texts of up to ``length`` tokens."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(**SHAPE, max_position_embeddings=max(length, 512))
    config._attn_implementation = attention
    return BertForSequenceClassification(config).eval()


def tokens(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1000, 30000, (1, length), generator=generator)


def _logits(model: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda ids: model(ids).logits


def _forward(model: torch.nn.Module, ids: Tensor) -> Subject:
    def run() -> Tensor:
        with torch.no_grad():
            return model(ids).logits

    return run


def _forward_backward(model: torch.nn.Module, ids: Tensor) -> Subject:
    def run() -> None:
        model.zero_grad()
        model(ids).logits[:, TARGET].sum().backward()

    return run


def _eager(model: torch.nn.Module, ids: Tensor) -> Subject:
    """What other tools do: weights materialised, autograd on all of them."""

    def run() -> Tensor:
        output = model(ids, output_attentions=True)
        gradients = torch.autograd.grad(
            output.logits[:, TARGET].sum(), output.attentions
        )
        return torch.stack([g.sum((1, 2)) for g in gradients]).sum(0)

    return run


def _attention_gradient(
    last_layer: bool = False, **options: bool
) -> Callable[..., Any]:
    def build(model: torch.nn.Module, ids: Tensor) -> Subject:
        layer = model.bert.encoder.layer[-1] if last_layer else None
        method = AttentionGradient(model, layer, **options)
        return lambda: method.attribute(ids, TARGET)

    return build


def _integrated_gradients(model: torch.nn.Module, ids: Tensor) -> Subject:
    method = LayerIntegratedGradients(
        _logits(model), model.bert.embeddings.word_embeddings
    )
    rows = max(1, 8192 // ids.shape[1])  # steps that go through the model at once
    return lambda: method.attribute(
        ids, torch.zeros_like(ids), TARGET, n_steps=IG_STEPS, internal_batch_size=rows
    )


def _gradient_x_activation(model: torch.nn.Module, ids: Tensor) -> Subject:
    method = LayerGradientXActivation(
        _logits(model), model.bert.embeddings.word_embeddings
    )
    return lambda: method.attribute(ids, TARGET)


def _lime(model: torch.nn.Module, ids: Tensor) -> Subject:
    method = Lime(_logits(model))
    rows = max(1, 8192 // ids.shape[1])

    def run() -> Tensor:
        with torch.no_grad():
            return method.attribute(
                ids, target=TARGET, n_samples=LIME_SAMPLES, perturbations_per_eval=rows
            )

    return run


def _occlusion(model: torch.nn.Module, ids: Tensor) -> Subject:
    method = Occlusion(_logits(model))
    rows = max(1, 8192 // ids.shape[1])

    def run() -> Tensor:
        with torch.no_grad():
            return method.attribute(
                ids, (1,), target=TARGET, perturbations_per_eval=rows
            )

    return run


# name: (what it is, attention implementation, how to build it, the peer it is
# compared with)
SUBJECTS: dict[str, tuple[str, str, Callable[..., Subject], str]] = {
    "forward": ("forward pass", "sdpa", _forward, "forward"),
    "forward_backward": (
        "forward + backward pass",
        "sdpa",
        _forward_backward,
        "forward_backward",
    ),
    "attention_gradient": (
        "`AttentionGradient`, all layers",
        "sdpa",
        _attention_gradient(),
        "forward_backward",
    ),
    "attention_x_gradient": (
        "`AttentionGradient`, × attention",
        "sdpa",
        _attention_gradient(multiply_by_attention=True),
        "forward_backward",
    ),
    "centered": (
        "`AttentionGradient`, centered",
        "sdpa",
        _attention_gradient(center=True),
        "forward_backward",
    ),
    "last_layer": (
        "`AttentionGradient`, last layer",
        "sdpa",
        _attention_gradient(last_layer=True),
        "forward",
    ),
    "eager": (
        "eager attention + autograd on the weights",
        "eager",
        _eager,
        "attention_gradient",
    ),
    "gradient_x_activation": (
        "Captum LayerGradientXActivation",
        "sdpa",
        _gradient_x_activation,
        "attention_gradient",
    ),
    "integrated_gradients": (
        f"Captum LayerIntegratedGradients, {IG_STEPS} steps",
        "sdpa",
        _integrated_gradients,
        "attention_gradient",
    ),
    "lime": (
        f"Captum Lime, {LIME_SAMPLES} samples",
        "sdpa",
        _lime,
        "attention_gradient",
    ),
    "occlusion": ("Captum Occlusion", "sdpa", _occlusion, "attention_gradient"),
}
