"""Transductions with a known alignment, learnt by the library's own transducer."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from captum_attngrad.attr import SequenceAttentionGradient
from captum_attngrad.capture import capture_attention
from captum_attngrad.models import AttentionSeq2Seq
from tests.models.planted_transductions import TASKS, sample, trained_on


@functools.cache
def _trained(task: str) -> AttentionSeq2Seq:
    torch.manual_seed(0)
    return trained_on(task)


def _scores(
    task: str, inputs: Tensor, targets: Tensor, outputs: Tensor, **options: bool
) -> Tensor:
    """Without the row of the end."""
    model = _trained(task)
    method = SequenceAttentionGradient(model, model.attention, **options)
    scores = method.attribute(inputs, targets, model.decoder_inputs(outputs))
    assert isinstance(scores, Tensor)
    assert scores.shape == (*targets.shape, inputs.shape[1])
    return scores[:, :-1]


def _distinct(task: str) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols that occur once, so that one input alone can speak for an output."""
    inputs, outputs, alignment = sample(task, 3000, 7)
    rows = [row for row, ids in enumerate(inputs.tolist()) if len({*ids}) == 7][:40]
    assert len(rows) > 20
    return inputs[rows], outputs[rows], alignment


def _share(found: Tensor, alignment: Tensor) -> float:
    return float((found == alignment).float().mean())


@pytest.mark.parametrize("options", [{}, {"multiply_by_attention": True}])
@pytest.mark.parametrize("task", TASKS)
def test_it_finds_the_alignment(task: str, options: dict[str, bool]) -> None:
    inputs, outputs, alignment = _distinct(task)
    scores = _scores(task, inputs, outputs, outputs, **options, center=True)
    assert _share(scores.argmax(dim=2), alignment) > 0.9
    # Any other alignment is not what it finds.
    assert _share(scores.argmax(dim=2), alignment.roll(2)) < 0.2


@pytest.mark.parametrize("task", TASKS)
def test_of_another_inputs_output_it_finds_that_input(task: str) -> None:
    inputs, outputs, alignment = _distinct(task)
    rivals = torch.full_like(outputs, -100)
    rivals[:, :-1] = outputs[:, :-1].roll(-2, dims=1)
    scores = _scores(task, inputs, rivals, outputs)
    assert _share(scores.argmax(dim=2), alignment.roll(-2)) > 0.9
    # Attention is the same whatever is asked, and looks elsewhere.
    model = _trained(task)
    with torch.no_grad(), capture_attention(model, model.attention) as record:
        model(inputs, model.decoder_inputs(outputs))
    weights = torch.cat([call.weights()[:, 0] for call in record], dim=1)[:, :-1]
    assert _share(weights.argmax(dim=2), alignment) > 0.9
    assert _share(weights.argmax(dim=2), alignment.roll(-2)) < 0.1


def test_what_it_decodes_itself_is_explained() -> None:
    model = _trained("reverse")
    inputs, _, _ = sample("reverse", 8, 6)
    mask = torch.ones_like(inputs, dtype=torch.bool)
    mask[0, 4:] = False
    outputs = model.greedy_decode(inputs, mask)
    method = SequenceAttentionGradient(model, model.attention)
    found = method.explain_generated(
        inputs, None, mask, start=model.start_idx, end=model.end_idx
    )
    targets = outputs.masked_fill(outputs == model.padding_idx, -100)
    expected = method.attribute(inputs, targets, (model.decoder_inputs(outputs), mask))
    for row, length in enumerate(found.lengths.tolist()):
        assert found.token_ids[row, :length].tolist() == outputs[row, :length].tolist()
    torch.testing.assert_close(found.attributions, expected)
    assert not found.attributions[0, :, 4:].any()
