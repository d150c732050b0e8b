"""Every Hugging Face family: exact against materialised attention weights."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_attngrad import (
    AttentionGradient,
    LayerAttentionGradient,
    find_attention_layers,
)
from tests.architectures.families import EXAMPLES, FAMILIES, Family, Run, padding_mask
from tests.architectures.table import Table

pytest.importorskip("transformers")

from tests.architectures import reference

COMBINATIONS = [(False, False), (True, False), (False, True), (True, True)]
TARGET = 1

reference.register()


def _score(run: Run, arguments: list[Any]) -> Tensor:
    return run(*arguments)[:, TARGET]


Calls = list[list[reference.Pairs]]  # of each module, in the order in which they run


def truth(
    family: Family,
    implementation: str,
    padded: bool,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Calls]:
    """The calls of each group of layers, from materialised weights."""
    arguments = family.arguments(padded, dtype)
    found: dict[str, list[reference.Pairs]] = {}
    run = family.build(reference.NAME if family.interface else "eager", dtype)
    names = {group: run.attention_names(group) for group in family.layers}
    if family.interface:
        found = reference.materialised(run.model, lambda: _score(run, arguments))
        allowed = {name: [c.allowed for c in calls] for name, calls in found.items()}
    else:
        mask = padding_mask() if padded else torch.ones_like(padding_mask())
        pairs = (mask[:, None, :, None] * mask[:, None, None, :]).bool()
        allowed = {
            n: [pairs.expand(-1, 4, -1, -1)] for n in itertools.chain(*names.values())
        }
    if implementation == "eager" and not family.sink:
        eager = family.build("eager", dtype)
        eager.options["output_attentions"] = True
        found = reference.returned_weights(
            eager.model, list(allowed), lambda: _score(eager, arguments), allowed
        )
    return {group: [found[name] for name in names[group]] for group in names}


def joined(calls: Calls, multiply: bool, center: bool) -> list[Tensor]:
    """One map per module: its calls one after the other along the queries."""
    return [
        torch.cat([call.scores(multiply, center) for call in module], dim=2)
        for module in calls
    ]


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize(
    ("family", "implementation"),
    [
        pytest.param(family, implementation, id=f"{family.name}-{implementation}")
        for family in FAMILIES
        for implementation in family.implementations
    ],
)
def test_exact(family: Family, implementation: str, padded: bool, table: Table) -> None:
    if padded and not family.mask:
        pytest.skip("no padding in this family")
    # A float64 model gives such a softmax masks that float32 cannot hold.
    float32 = family.float32_softmax and implementation == "eager"
    dtype = torch.float32 if float32 else torch.float64
    run = family.build(implementation, dtype)
    inputs, *additional = family.arguments(padded, dtype)
    for group, calls in truth(family, implementation, padded, dtype).items():
        modules = run.attention_modules(group)

        def check(got: Tensor, expected: Tensor, group: str = group) -> None:
            table.compare(
                family.name,
                implementation,
                got,
                expected,
                layers=group,
                remark=family.remark,
            )

        for multiply, center in COMBINATIONS:
            options = {"multiply_by_attention": multiply, "center": center}
            expected = joined(calls, multiply, center)
            layer_method = LayerAttentionGradient(run, modules, **options)
            maps, attention = layer_method.attribute(
                inputs, TARGET, tuple(additional), return_attention=True
            )
            table.proved(
                family.name, implementation, layer_method, inputs, tuple(additional)
            )
            for got, want in zip(maps, expected, strict=True):
                check(got, want)
            for got, module in zip(attention, calls, strict=True):
                weights = [call.weights * call.allowed for call in module]
                check(got, torch.cat(weights, dim=2).detach())

            total = sum(pairs.sum(dim=1) for pairs in expected)  # over heads
            method = AttentionGradient(run, modules, **options)
            check(method.attribute(inputs, TARGET, tuple(additional)), total.sum(dim=1))
            for query in (1, -1, torch.tensor([2, 1, 3])):
                got = method.attribute(inputs, TARGET, tuple(additional), query=query)
                check(got, total[torch.arange(EXAMPLES), query])


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_what_is_found(family: Family) -> None:
    """All attention modules and nothing else: no router, no pooling, no head."""
    for implementation in family.implementations:
        run = family.build(implementation)
        infos = find_attention_layers(run, *family.arguments(padded=False))
        expected = {f"model.{n}" for g in family.layers for n in run.attention_names(g)}
        assert {info.name for info in infos} == expected
        assert {info.heads for info in infos} == {4}
        kind = (
            "softmax" if implementation == "eager" else "scaled_dot_product_attention"
        )
        assert {info.kind for info in infos} == {kind}


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if "sdpa" in f.implementations], ids=str
)
def test_float32(family: Family, padded: bool, table: Table) -> None:
    if padded and not family.mask:
        pytest.skip("no padding in this family")
    run = family.build("sdpa", torch.float32)
    inputs, *additional = family.arguments(padded, torch.float32)
    double = truth(family, "sdpa", padded)
    for group, calls in double.items():
        for multiply, center in COMBINATIONS:
            method = AttentionGradient(
                run,
                run.attention_modules(group),
                multiply_by_attention=multiply,
                center=center,
            )
            expected = sum(p.sum((1, 2)) for p in joined(calls, multiply, center))
            table.compare(
                family.name,
                "sdpa",
                method.attribute(inputs, TARGET, tuple(additional)),
                expected.float(),
                layers=group,
                remark=family.remark,
            )


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_left_padding(implementation: str) -> None:
    """The first queries of a causal model then see nothing; they score 0."""
    family = next(f for f in FAMILIES if f.name == "GPT-2")
    run = family.build(implementation)
    inputs, mask = family.arguments(padded=True)
    mask = mask.flip(1)
    maps, attention = LayerAttentionGradient(run).attribute(
        inputs, TARGET, mask, return_attention=True
    )
    allowed = torch.ones(7, 7, dtype=torch.bool).tril() & mask[:, None, None].bool()
    for got in (*maps, *attention):
        assert got.isfinite().all()
        assert bool((got[~allowed.expand_as(got)] == 0).all())
        assert bool((got[allowed.expand_as(got)] != 0).all())
    sums = AttentionGradient(run).attribute(inputs, TARGET, mask)
    torch.testing.assert_close(sums, sum(m.sum((1, 2)) for m in maps))


def test_shared_layers_give_one_module_with_several_calls() -> None:
    family = next(f for f in FAMILIES if f.name == "ALBERT")
    run = family.build("sdpa")
    inputs, mask = family.arguments(padded=True)
    (info,) = find_attention_layers(run, inputs, mask)
    assert info.calls == 3
    maps = LayerAttentionGradient(run, info.module).attribute(inputs, TARGET, mask)
    assert maps.shape == (EXAMPLES, 4, 3 * 7, 7)


def test_the_keys_of_the_decoder_differ_from_those_of_cross_attention() -> None:
    family = next(f for f in FAMILIES if f.name == "T5")
    run = family.build("sdpa")
    inputs, *additional = family.arguments(padded=False)
    with pytest.raises(ValueError, match=r"7 keys in .*EncDecAttention.*5 keys in"):
        AttentionGradient(run).attribute(inputs, TARGET, tuple(additional))


def test_soft_capping_is_part_of_the_scores() -> None:
    """Scores lie within the cap c, so no weight of a row is more than exp(2c) times
    another; centered and multiplied is the gradient of the capped scores."""
    family = next(f for f in FAMILIES if f.name == "Gemma2")
    run = family.build("eager")
    inputs, mask = family.arguments(padded=False)
    method = LayerAttentionGradient(
        run,
        run.attention_modules("self")[1],
        multiply_by_attention=True,
        center=True,
    )
    scores, weights = method.attribute(inputs, TARGET, mask, return_attention=True)
    smallest = torch.where(weights > 0, weights, 1).amin(-1)
    cap = run.model.config.attn_logit_softcapping
    ratio = weights.amax(-1) / smallest
    assert bool((ratio <= math.exp(2 * cap)).all())
    assert bool((ratio > 2).any())
    zero = torch.zeros_like(ratio)
    torch.testing.assert_close(scores.sum(-1), zero, atol=1e-5, rtol=0)


def test_an_attention_sink_takes_weight_and_is_no_key() -> None:
    family = next(f for f in FAMILIES if f.name == "gpt-oss")
    run = family.build("eager")
    inputs, mask = family.arguments(padded=False)
    maps, attention = LayerAttentionGradient(run).attribute(
        inputs, TARGET, mask, return_attention=True
    )
    for got, weights in zip(maps, attention, strict=True):
        assert got.shape == weights.shape == (EXAMPLES, 4, 7, 7)
        assert bool((weights.sum(-1) < 0.99).all())


@pytest.mark.parametrize("experts", ["eager", "batched_mm"])
@pytest.mark.parametrize("name", ["Mixtral", "gpt-oss"])
def test_routers_are_no_attention(name: str, experts: str) -> None:
    family = next(f for f in FAMILIES if f.name == name)
    run = family.build("eager")
    run.model.config._experts_implementation = experts
    infos = find_attention_layers(run, *family.arguments(padded=False))
    assert [i.name for i in infos] == [
        f"model.{n}" for n in run.attention_names("self")
    ]
