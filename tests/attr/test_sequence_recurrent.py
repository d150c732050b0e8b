"""Recurrent decoders against perturbed weights and one backward pass per output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad import AttentionGradient, SequenceAttentionGradient
from captum_attngrad.attr.sequence import _diagonal_gradients
from tests.attr.sequence_models import (
    KINDS,
    batch,
    recurrent,
    recurrent_truth,
    summed,
)


@pytest.mark.parametrize("layer", [None, "attention", "inner"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_output_has_the_gradient_of_its_own_score(
    kind: str, padded: bool, layer: str | None
) -> None:
    model = recurrent(kind)
    source, fed, targets, padding = batch()
    mask = padding if padded else None
    truth = recurrent_truth(model, source, fed, targets, mask)
    module = None if layer is None else model.attention
    forward = model if layer != "inner" else lambda *a: model(*a)
    method = SequenceAttentionGradient(forward, module)
    found = method.attribute(source, targets, (fed, mask))
    assert found.shape == truth.shape
    torch.testing.assert_close(found, truth)
    assert float(truth.abs().max()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_of_all_scores_has_another_gradient(kind: str) -> None:
    model = recurrent(kind)
    source, fed, targets, _ = batch()
    found = SequenceAttentionGradient(model).attribute((source, fed), targets)[0]
    other = summed(model, source, fed, targets)
    torch.testing.assert_close(found[:, -1], other[:, -1])  # nothing comes after it
    if kind == "luong_plain":  # attention is not fed back
        torch.testing.assert_close(found, other)
        return
    for t in range(targets.shape[1] - 1):
        difference = (found[:, t] - other[:, t]).norm() / found[:, t].norm()
        assert float(difference) > 0.05


def test_the_sum_of_rows_is_not_the_attention_gradient_of_the_sum() -> None:
    # AttentionGradient explains one score; here the sum over outputs.
    model = recurrent("bahdanau")
    source, fed, targets, _ = batch()

    def total(source: torch.Tensor, fed: torch.Tensor) -> torch.Tensor:
        return model(source, fed).gather(2, targets.unsqueeze(2)).sum((1, 2))

    of_sum = AttentionGradient(total, model.attention).attribute((source, fed))[0]
    rows = SequenceAttentionGradient(model).attribute((source, fed), targets)[0]
    torch.testing.assert_close(of_sum, summed(model, source, fed, targets).sum(1))
    assert not torch.allclose(of_sum, rows.sum(1), rtol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_ignored_outputs_are_zero_and_change_nothing(kind: str) -> None:
    model = recurrent(kind)
    source, fed, targets, _ = batch()
    truth = recurrent_truth(model, source, fed, targets)
    targets[0, 2:] = -100
    targets[2, 0] = -100
    targets[:, 1] = -100  # in no example
    kept = (targets != -100).unsqueeze(-1)
    found = SequenceAttentionGradient(model).attribute(source, targets, fed)
    torch.testing.assert_close(found, truth * kept)
    assert bool((found[~kept.squeeze(-1)] == 0).all())
    targets[targets == -100] = -1
    other = SequenceAttentionGradient(model, ignore_index=-1)
    torch.testing.assert_close(other.attribute(source, targets, fed), found)


STEP_BY_STEP = ["stack", "logits", "cat", "write", "write time first", "two", "twice"]
IN_BATCHES = ["grow", "nested", "reversed", "shared", "past"]


@pytest.mark.parametrize("join", STEP_BY_STEP + IN_BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_however_outputs_are_put_together(
    kind: str, join: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = recurrent(kind)
    model.join = join
    source, fed, targets, padding = batch(outputs=11)
    targets[0, 2:4] = 3
    truth = recurrent_truth(model, source, fed, targets, padding)
    used = []
    in_batches = _diagonal_gradients._in_batches

    def note(*args: Any) -> Any:
        used.append(args)
        return in_batches(*args)

    monkeypatch.setattr(_diagonal_gradients, "_in_batches", note)
    method = SequenceAttentionGradient(model)
    torch.testing.assert_close(method.attribute(source, targets, (fed, padding)), truth)
    if join == "write time first" and torch.__version__.startswith("2.3"):
        return  # torch 2.3 does not tell a mode of ``tensor[0] = ...``
    # Each step is visited once where that is possible, and only there.
    assert bool(used) == (join in IN_BATCHES)


def _total(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output, target, reduction="sum")


@pytest.mark.parametrize(
    "loss",
    [F.cross_entropy, _total, torch.nn.CrossEntropyLoss(reduction="none")],
    ids=["mean", "sum", "none"],
)
def test_minus_the_loss_of_each_output(loss: object) -> None:
    model = recurrent("luong")
    source, fed, targets, _ = batch()
    truth = recurrent_truth(model, source, fed, targets, loss=F.cross_entropy)
    method = SequenceAttentionGradient(model, loss_func=loss)
    torch.testing.assert_close(method.attribute(source, targets, fed), truth)
    targets[1, 1] = -100
    truth[1, 1] = 0
    torch.testing.assert_close(method.attribute(source, targets, fed), truth)


@pytest.mark.parametrize("rows", [1, 3, 6, 7, 1000])
def test_batches_of_any_size_give_the_same(rows: int) -> None:
    model = recurrent("bahdanau")
    source, fed, targets, _ = batch()
    truth = recurrent_truth(model, source, fed, targets)
    found = SequenceAttentionGradient(model).attribute(
        source, targets, fed, internal_batch_size=rows
    )
    torch.testing.assert_close(found, truth)


@given(
    examples=st.integers(1, 4),
    source=st.integers(1, 5),
    outputs=st.integers(1, 5),
    kind=st.sampled_from(KINDS),
    rows=st.none() | st.integers(1, 20),
)
def test_shapes(
    examples: int, source: int, outputs: int, kind: str, rows: int | None
) -> None:
    model = recurrent(kind)
    ids, fed, targets, padding = batch(source, outputs, examples)
    truth = recurrent_truth(model, ids, fed, targets, padding)
    found = SequenceAttentionGradient(model).attribute(
        ids, targets, (fed, padding), internal_batch_size=rows
    )
    assert found.shape == (examples, outputs, source)
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("no_grad", [False, True])
def test_frozen_models_and_no_grad(frozen: bool, no_grad: bool) -> None:
    model = recurrent("bahdanau")
    source, fed, targets, _ = batch()
    truth = recurrent_truth(model, source, fed, targets)
    model.requires_grad_(not frozen)
    with torch.set_grad_enabled(not no_grad):
        found = SequenceAttentionGradient(model).attribute(source, targets, fed)
    torch.testing.assert_close(found, truth)
    assert all(p.grad is None for p in model.parameters())


def test_a_forward_function_that_runs_without_gradients() -> None:
    model = recurrent("luong")
    source, fed, targets, _ = batch()

    def forward(source: torch.Tensor, fed: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(source, fed)

    method = SequenceAttentionGradient(forward, model.attention)
    with pytest.raises(RuntimeError, match=r"not on the path .*torch\.no_grad in"):
        method.attribute(source, targets, fed)
