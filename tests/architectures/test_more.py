"""More architectures against their softmaxes; sizes differ, coincide, or are one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from captum_attngrad import (
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    LayerAttentionGradient,
)

pytest.importorskip("transformers")

from tests.architectures import reference
from tests.architectures.cases import SEQ2SEQ, Case
from tests.architectures.cases_seq2seq import SEQ2SEQ_CASES
from tests.architectures.cases_text import TEXT
from tests.architectures.cases_vision import VISION
from tests.architectures.softmaxes import softmax_weights
from tests.architectures.table import Table

reference.register()
# Refused: chunks that overlap are put together by operations that cannot be followed
# (Longformer, LED), or one layer attends to two kinds of keys (PatchTST over channels).
REFUSED = ("Longformer", "LED", "PatchTST, channels")
# Without a reference: hashed buckets, a backbone without fused attention, rows that the
# model masks throughout and weighs all the same.
UNCHECKED = ("Reformer", "DETR", "Deformable DETR", "LongT5, local", "Funnel, pooled")
EVERY = [*TEXT, *SEQ2SEQ_CASES, *VISION]
CASES = [case for case in EVERY if case.name not in (*REFUSED, *UNCHECKED)]
Pair = tuple[Tensor, Tensor]  # weights and their gradient


def truth(
    case: Case, group: str, implementation: str, arguments: Any, dtype: torch.dtype
) -> list[Pair]:
    batch = len(arguments[0])
    if case.interface and implementation != "eager":
        run = case.build(reference.NAME, dtype)
        found = reference.materialised(run.model, lambda: run(*arguments)[:, 1])
        names = {m: n for n, m in run.model.named_modules()}
        return [
            (
                case.arrange(c.weights.detach(), batch),
                case.arrange(c.gradient * c.allowed, batch),
            )
            for module in run.modules_of(group)
            for c in found[names[module]]
        ]
    run = case.build("eager", dtype)
    pairs = softmax_weights(run.modules_of(group), lambda: run(*arguments)[:, 1])
    return [(case.arrange(w, batch), case.arrange(g, batch)) for w, g in pairs]


@pytest.mark.parametrize("sizes", ["different", "coinciding", "one example"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(case: Case, sizes: str, table: Table) -> None:
    batch = {"different": 3, "coinciding": case.coincide, "one example": 1}[sizes]
    implementation = case.implementations[sizes == "coinciding" and -1]
    eager32 = case.float32 and implementation == "eager"
    dtype = torch.float32 if eager32 else torch.float64
    # What the model computes in float32 is compared in it.
    compared = torch.float32 if case.float32 else dtype
    run = case.build(implementation, dtype)
    length = case.coincide if sizes == "coinciding" else None
    arguments = case.arguments(batch, dtype, length)

    def check(found: Tensor, expected: Tensor, group: str) -> None:
        table.compare(
            case.name,
            implementation,
            found.to(compared),
            expected.to(compared),
            layers=group or "self",
            remark=case.remark,
        )

    for group in case.layers:
        modules = run.modules_of(group)
        pairs = truth(case, group, implementation, arguments, dtype)
        method = LayerAttentionGradient(run, modules)
        maps, weights = method.attribute(arguments, 1, return_attention=True)
        table.proved(case.name, implementation, method, arguments)
        expected = iter(pairs)
        total = torch.zeros(())
        for found, attention in zip(maps, weights, strict=True):
            first = 0
            while first < found.shape[2]:
                weight, gradient = (t[..., : found.shape[3]] for t in next(expected))
                rows = slice(first, first + weight.shape[2])
                check(attention[:, :, rows], weight, group)
                # Forbidden pairs have a weight of 0.
                gradient = torch.where(weight == 0, 0, gradient)
                part = found[:, :, rows]
                check(torch.where(weight == 0, 0, part), gradient, group)
                total = total + gradient.sum((1, 2))
                first += weight.shape[2]
        assert next(expected, None) is None
        if case.sums:
            scores = AttentionGradient(run, modules).attribute(arguments, 1)
            check(scores[0], total, group)
        else:
            with pytest.raises(ValueError, match=r"no score for each token|different"):
                AttentionGradient(run, modules).attribute(arguments, 1)


@pytest.mark.parametrize("case", [c for c in EVERY if c.name in REFUSED], ids=str)
def test_refused(case: Case) -> None:
    run = case.build(case.implementations[-1])
    arguments = case.arguments(2)
    for group in case.layers:
        modules = run.modules_of(group)
        if group in ("decoder", "cross"):
            continue
        with pytest.raises(
            ValueError, match=r"No attention was found|different keys|each token"
        ):
            AttentionGradient(run, modules).attribute(arguments, 1)


@pytest.mark.parametrize("length", [7, 3])
def test_layers_whose_tokens_differ_are_never_combined(length: int) -> None:
    """BART's decoder reads the text shifted by one."""
    from transformers import BartConfig, BartForSequenceClassification

    model = BartForSequenceClassification(BartConfig(**SEQ2SEQ)).eval()
    ids = torch.randint(4, 40, (3, length))
    ids[:, -1] = 2  # the classifier reads the end token
    for method in (AttentionGradient, AttentionRollout, AttentionRelevance):
        with pytest.raises(ValueError, match=r"different keys|not the tokens"):
            method(model).attribute(ids, 1)
    encoder = list(model.model.encoder.layers)
    assert AttentionGradient(model, encoder).attribute(ids, 1).shape == ids.shape
