"""timm's vision transformer, fused and written out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    LayerAttentionGradient,
    find_attention_layers,
)
from tests.architectures.reference import Pairs
from tests.architectures.table import Table

try:
    from timm.models.vision_transformer import VisionTransformer
except (ImportError, RuntimeError) as error:
    # RuntimeError: a torchvision that was built for another torch.
    pytest.skip(f"timm cannot be imported: {error}", allow_module_level=True)


def _model() -> nn.Module:
    model = VisionTransformer(
        img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=4, num_classes=3
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def _truth(model: nn.Module, images: Tensor) -> list[Pairs]:
    """The written-out attention passes its weights through ``attn_drop``."""
    calls: list[Pairs] = []

    def keep(module: nn.Module, _: Any, weights: Tensor) -> None:
        allowed = torch.ones_like(weights, dtype=torch.bool)
        calls.append(Pairs(module, weights, allowed))

    for block in model.blocks:
        block.attn.fused_attn = False
    handles = [b.attn.attn_drop.register_forward_hook(keep) for b in model.blocks]
    score = model(images)[:, 1].sum()
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(score, [call.weights for call in calls])
    for call, gradient in zip(calls, gradients, strict=True):
        call.gradient = gradient
    return calls


@pytest.mark.parametrize("fused", [True, False], ids=["sdpa", "written out"])
def test_exact(fused: bool, table: Table) -> None:
    model = _model()
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    calls = _truth(model, images)
    for block in model.blocks:
        block.attn.fused_attn = fused
    names = [info.name for info in find_attention_layers(model, images)]
    assert names == ["blocks.0.attn", "blocks.1.attn"]

    def check(got: Tensor, expected: Tensor) -> None:
        table.compare(
            "VisionTransformer",
            "sdpa" if fused else "written out",
            got,
            expected,
            library="timm",
        )

    for multiply, center in itertools.product((False, True), repeat=2):
        options = {"multiply_by_attention": multiply, "center": center}
        expected = [call.scores(multiply, center) for call in calls]
        maps = LayerAttentionGradient(model, **options).attribute(images, 1)
        for got, want in zip(maps, expected, strict=True):
            check(got, want)
        total = sum(pairs.sum(1) for pairs in expected)
        method = AttentionGradient(model, **options)
        check(method.attribute(images, 1), total.sum(1))
        table.proved(
            "VisionTransformer",
            "sdpa" if fused else "written out",
            method,
            images,
            library="timm",
        )
        check(method.attribute(images, 1, query=0), total[:, 0])
