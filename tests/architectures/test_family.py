"""The whole family on Hugging Face models: every kernel against eager attention.

That eager attention itself is right is shown from the definitions in tests/attr.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_attngrad.attr import (
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    AttentionWeights,
    IntegratedAttentionGradient,
    LayerAttentionGradient,
)
from tests.architectures.families import FAMILIES, Family, Run

pytest.importorskip("transformers")

from tests.architectures.test_kernels import (  # noqa: F401 (fixtures)
    flex_on_the_cpu,
    stand_in,
    with_attention,
)

_KERNELS = {
    "sdpa": ("BERT", "ModernBERT", "Llama", "Mistral"),
    "flash_attention_2": ("BERT", "Llama", "Gemma2"),
    "flex_attention": ("Llama",),
}
_FAMILIES = {family.name: family for family in FAMILIES}


def explanations(run: Run, family: Family, arguments: list[Any]) -> Iterator[Tensor]:
    (group,) = family.layers
    modules = run.attention_modules(group)
    inputs, *rest = arguments
    for method in (
        AttentionWeights(run, modules),
        AttentionWeights(run, modules, heads=[0, 3]),
        AttentionRollout(run, modules),
        AttentionRelevance(run, modules),
        AttentionRelevance(run, modules, signed=True, heads=[1]),
        AttentionGradient(run, modules, positive_only=True),
        AttentionGradient(run, modules, multiply_by_attention=True, positive_only=True),
        IntegratedAttentionGradient(run, modules),
        IntegratedAttentionGradient(run, modules, scale="one"),
    ):
        for query in (None, -1):
            yield method.attribute(inputs, 1, tuple(rest), query=query)
    for multiply, center in itertools.product((False, True), repeat=2):
        layers = LayerAttentionGradient(
            run, modules, multiply_by_attention=multiply, center=center
        )
        for reduce in ("key",) if multiply and center else ("head", "key", "query"):
            yield from layers.attribute(inputs, 1, tuple(rest), reduce=reduce)


@pytest.mark.parametrize(
    ("kernel", "name"), [(k, n) for k, names in _KERNELS.items() for n in names]
)
@pytest.mark.usefixtures("stand_in", "flex_on_the_cpu")
def test_kernels_agree_with_eager_attention(kernel: str, name: str) -> None:
    family = _FAMILIES[name]
    # Flash attention leaves out queries that are padding, and eager attention does not;
    # with a sliding window, padding makes rows of nan in it.
    padded = kernel != "flash_attention_2" and name in ("BERT", "Llama")
    arguments = family.arguments(padded)
    run = family.build(kernel) if kernel == "sdpa" else with_attention(family, kernel)
    found = explanations(run, family, arguments)
    expected = explanations(family.build("eager"), family, arguments)
    tolerance = 1e-4 if family.float32_softmax else 1e-9
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(
            ours.double(), theirs.double(), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("name", ["BERT", "ModernBERT", "Llama", "Mistral", "Gemma2"])
def test_completeness(name: str) -> None:
    family = _FAMILIES[name]
    inputs, *rest = family.arguments(padded=False)
    run = family.build(family.implementations[0])
    for scale in ("together", "one"):
        method = IntegratedAttentionGradient(run, scale=scale)
        found, delta = method.attribute(
            inputs, 1, tuple(rest), 64, return_convergence_delta=True
        )
        error = float(delta.abs().max()) / float(found.abs().sum())
        if name == "Gemma2":
            # A norm right after the attention undoes the scaling: nearly all of the
            # path lies at alpha = 0, where no step is, and the delta says so.
            assert error > 1e-3
        else:
            assert error < 1e-5
