"""Attention without a differentiable path to the score: an error, and no zeros."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import (
    AttentionDeepLift,
    AttentionGradient,
    AttentionRelevance,
    IntegratedAttentionGradient,
    JointIntegratedGradients,
    LayerAttentionGradient,
    LLMAttentionGradient,
    SequenceAttentionGradient,
)
from tests.attr.encoder import written_out
from tests.attr.language_models import WordTokenizer, decoder
from tests.attr.models import Classifier, classifier, token_ids
from tests.attr.sequence_models import batch, transformer


class NoGradient(torch.autograd.Function):
    """As an operation without a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        return None


class Zeros(torch.autograd.Function):
    """A gradient that is there, and 0: nothing changes the result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.zeros_like(gradients[0])


class Through(nn.Module):
    """A layer behind the attention."""

    def __init__(self, layer: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.function(x))


def quantized(module: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(
        module.float(), {nn.Linear}, dtype=torch.qint8
    )


@contextmanager
def torch_may_warn() -> Iterator[None]:
    """Of its int8 operations torch says that they have no backward pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*an autograd kernel was not reg")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def lost(way: str) -> Classifier:
    model = classifier()
    if way == "int8":
        return quantized(model)
    if way == "int8 head":
        model.float().head = quantized(nn.Sequential(model.head))[0]
        return model
    function = Tensor.detach if way == "detach" else NoGradient.apply
    model.head = Through(model.head, function)
    return model


WAYS = ["detach", "int8", "int8 head", "no backward pass"]
CLASSES = [
    AttentionGradient,
    LayerAttentionGradient,
    IntegratedAttentionGradient,
    AttentionRelevance,
    JointIntegratedGradients,
    AttentionDeepLift,
]


def method_of(kind: type, model: Any, layer: Any = None) -> Any:
    takes = kind in (JointIntegratedGradients, AttentionDeepLift)
    return kind(model, layer, **({"embedding": model.embedding} if takes else {}))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("frozen", [False, True])
def test_all_attention_is_lost(kind: type, way: str, frozen: bool) -> None:
    with torch_may_warn():
        model = lost(way).requires_grad_(not frozen)
        ids, _ = token_ids()
        message = r"layers\.0', 'layers\.1'.* not on the path|None .* on the path"
        with pytest.raises(RuntimeError, match=message):
            method_of(kind, model).attribute(ids, target=1)
        for layer in (model.layers, model.layers[0], list(model.layers)):
            with pytest.raises(RuntimeError, match="on the path to the output"):
                method_of(kind, model, layer).attribute(ids, target=1)


@pytest.mark.parametrize("way", WAYS)
def test_slopes_alone(way: str) -> None:
    with torch_may_warn():
        model = lost(way)
        ids, _ = token_ids()
        method = AttentionDeepLift(model, embedding=model.embedding)
        with pytest.raises(RuntimeError, match="on the path to the output"):
            method.attribute(ids, target=1, joint_steps=0)


class Chosen(Classifier):
    """With a layer that is detached, and attention of its own or that of the layers."""

    def __init__(self, detached: int, attend: Any = None) -> None:
        super().__init__()
        self.detached = detached
        self.attend = attend

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embedding(x)
        for i, layer in enumerate(self.layers):
            found = layer(x) if self.attend is None else self.attend(x, x, x, None)
            x = x + (found.detach() if i == self.detached else found)
        return self.head(x.mean(1))


@pytest.mark.parametrize("attend", [None, written_out], ids=["fused", "written out"])
@pytest.mark.parametrize("steps", [0, 2])
def test_slopes_without_one_layer(attend: Any, steps: int) -> None:
    model, (ids, _) = Chosen(0, attend).double().eval(), token_ids()
    method = AttentionDeepLift(model, embedding=model.embedding)
    if attend is None:
        with pytest.warns(UserWarning, match=r"'layers\.0'; they count as 0"):
            found = method.attribute(ids, target=1, joint_steps=steps)
        with pytest.raises(RuntimeError, match=r"SelfAttention .* are not on the"):
            AttentionDeepLift(
                model, model.layers[0], embedding=model.embedding
            ).attribute(ids, target=1, joint_steps=steps)
    else:  # both calls are the model's own
        found = method.attribute(ids, target=1, joint_steps=steps)
    assert bool(found.isfinite().all())
    assert bool(found.any())


def test_attention_that_is_written_out_and_lost() -> None:
    model, (ids, _) = Chosen(9, written_out).double().eval(), token_ids()
    model.head = Through(model.head, NoGradient.apply)
    method = AttentionDeepLift(model, embedding=model.embedding)
    with pytest.raises(RuntimeError, match=r"None .*\(''\).* on the path"):
        method.attribute(ids, target=1, joint_steps=0)


def test_joint_integrated_gradients_without_the_embeddings() -> None:
    class Detached(Classifier):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            x = self.embedding(x).detach()
            return self.head(self.layers[0](x).mean(1))

    model, (ids, _) = Detached().double().eval(), token_ids()
    method = JointIntegratedGradients(model, embedding=model.embedding)
    with pytest.raises(RuntimeError, match="does not depend on the embeddings"):
        method.attribute(ids, target=1)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_gradient_of_zero_is_a_gradient(kind: type) -> None:
    """Where the score is saturated there is a path, and 0 is the answer."""
    model, (ids, _) = classifier(), token_ids()
    model.head = Through(model.head, Zeros.apply)
    for layer in (None, list(model.layers)):
        found = method_of(kind, model, layer).attribute(ids, target=1)
        for scores in found if isinstance(found, list) else [found]:
            assert bool(scores.isfinite().all())
            assert kind is AttentionRelevance or not scores.any()


@pytest.mark.parametrize("way", ["int8 head", "no backward pass"])
def test_long_inputs(way: str) -> None:
    """Whose fused calls have a backward pass of our own."""
    with torch_may_warn():
        model = lost(way)
        ids = torch.randint(20, (1, 300))
        for layer in (None, model.layers[0]):
            with pytest.raises(RuntimeError, match="on the path to the output"):
                AttentionGradient(model, layer).attribute(ids, 1)


@pytest.mark.parametrize("way", WAYS)
def test_sequence_models(way: str) -> None:
    source, fed, targets, _ = batch()
    with torch_may_warn():
        model = transformer()
        if way == "int8":
            model = quantized(model)
        elif way == "int8 head":
            model.float().out = quantized(nn.Sequential(model.out))[0]
        else:
            function = Tensor.detach if way == "detach" else NoGradient.apply
            model.out = Through(model.out, function)
        cross = [layer.multihead_attn for layer in model.transformer.decoder.layers]
        for layer in (None, cross):
            method = SequenceAttentionGradient(model, layer)
            with pytest.raises(
                RuntimeError, match=r"depend on the attention|on the path"
            ):
                method.attribute((source, fed), targets)


@pytest.mark.parametrize("way", WAYS)
def test_language_models(way: str) -> None:
    with torch_may_warn():
        model = decoder()
        if way == "int8":
            model = quantized(model)
        elif way == "int8 head":
            model.float().head = quantized(nn.Sequential(model.head))[0]
        else:
            function = Tensor.detach if way == "detach" else NoGradient.apply
            model.head = Through(model.head, function)
        for layer in (None, list(model.layers)):
            llm = LLMAttentionGradient(AttentionGradient(model, layer), WordTokenizer())
            with pytest.raises(RuntimeError, match="on the path to the output"):
                llm.attribute("the cat sat", " on mat")
