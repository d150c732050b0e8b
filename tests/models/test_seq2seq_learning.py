from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_attngrad.models import AttentionSeq2Seq
from tests.models.planted_transductions import TASKS, sample, trained_on


def _attention(model: AttentionSeq2Seq, inputs: Tensor, outputs: Tensor) -> Tensor:
    """Return the weights, (batch, outputs, inputs), without those of the end."""
    weights: list[Tensor] = []
    hook = model.attention.register_forward_hook(lambda *a: weights.append(a[2][1]))
    with torch.no_grad():
        model(inputs, model.decoder_inputs(outputs))
    hook.remove()
    return torch.stack(weights[:-1], dim=1)


@pytest.mark.parametrize("task", TASKS)
def test_it_learns_the_task_and_its_alignment(task: str) -> None:
    model = trained_on(task)
    inputs, outputs, alignment = sample(task, 100, 7)
    found = model.greedy_decode(inputs, max_outputs=outputs.shape[1])
    assert found.shape == outputs.shape
    assert (found == outputs).all(dim=1).float().mean() > 0.8
    aligned = _attention(model, inputs, outputs).argmax(dim=-1) == alignment
    assert aligned.float().mean() > 0.9


def test_what_was_not_learnt_is_not_found() -> None:
    model = trained_on("copy")
    inputs, outputs, alignment = sample("reverse", 100, 8)
    found = model.greedy_decode(inputs, max_outputs=9)
    assert not torch.equal(found, outputs)
    assert (found[:, :8] == outputs[:, : found[:, :8].shape[1]]).float().mean() < 0.3
    aligned = _attention(model, inputs, outputs).argmax(dim=-1) == alignment
    assert aligned.float().mean() < 0.5
