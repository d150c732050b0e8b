"""A decoder whose alignment is known: it must be found, and the sum must not be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import SequenceAttentionGradient

LENGTH, CLASSES = 6, 10
START = 0


class Attend(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.delta: list[Tensor] = []  # for the sum of all scores

    def forward(self, scores: Tensor, values: Tensor) -> Tensor:
        weights = scores.softmax(-1)
        if self.delta:
            weights = weights + self.delta.pop(0)
        return (weights.unsqueeze(1) @ values).squeeze(1)


class Planted(nn.Module):
    """Output t is made from source position ``order[t]``, through a table of outputs.

    The state collects all that was attended to before, and adds it to the scores with
    a weight of 2; tokens that have been given out are ruled out. So attention of step t
    to the token of a *later* output helps that output more than its own attention
    does: the sum of all scores points there. It is no reason for output t.
    """

    def __init__(self, order: Tensor, table: Tensor) -> None:
        super().__init__()
        self.order = order
        self.values = nn.Embedding.from_pretrained(torch.eye(CLASSES)[table])
        self.attention = Attend()

    def forward(self, source: Tensor, fed: Tensor) -> Tensor:
        values = self.values(source)
        memory = torch.zeros(len(source), CLASSES)
        given = torch.zeros(len(source), CLASSES)
        outputs = []
        for t, token in enumerate(fed.unbind(1)):
            given = given + nn.functional.one_hot(token, CLASSES)
            scores = 2.5 * nn.functional.one_hot(self.order[t], LENGTH)
            context = self.attention(scores.expand(len(source), -1), values)
            outputs.append(context + 2 * memory - 100 * given)
            memory = memory + context
        return torch.stack(outputs, 1)


ORDERS = {
    "copy": torch.arange(LENGTH),
    "reverse": torch.arange(LENGTH).flip(0),
    "lookup": torch.tensor([3, 1, 5, 0, 4, 2]),
}


def _task(name: str) -> tuple[Planted, Tensor, Tensor]:
    order = ORDERS[name]
    table = torch.arange(CLASSES)
    if name == "lookup":  # outputs are other tokens than their sources
        table = torch.tensor([0, 4, 7, 1, 9, 2, 8, 3, 5, 6])
    source = torch.stack([torch.randperm(CLASSES - 1)[:LENGTH] + 1 for _ in range(5)])
    return Planted(order, table), source, table[source[:, order]]


@pytest.mark.parametrize("name", ORDERS)
def test_the_planted_alignment_is_found_exactly(name: str) -> None:
    model, source, expected = _task(name)
    method = SequenceAttentionGradient(model)
    explained = method.explain_generated(source, start=START, max_outputs=LENGTH)
    # The model does what it was made for, by itself.
    assert torch.equal(explained.token_ids, expected)
    aligned = torch.eye(LENGTH)[ORDERS[name]].expand(5, -1, -1)
    assert torch.equal(explained.attributions, aligned)


@pytest.mark.parametrize("name", ORDERS)
def test_the_sum_of_all_scores_points_elsewhere(name: str) -> None:
    model, source, expected = _task(name)
    fed = nn.functional.pad(expected[:, :-1], (1, 0), value=START)
    delta = torch.zeros(5, LENGTH, LENGTH, requires_grad=True)
    model.attention.delta = list(delta.unbind(1))
    score = model(source, fed).gather(2, expected.unsqueeze(2)).sum()
    (of_sum,) = torch.autograd.grad(score, delta)
    wrong = of_sum.argmax(-1) != ORDERS[name]
    assert bool(wrong[:, :-1].all())  # right for the last output alone
    found = SequenceAttentionGradient(model).attribute(source, expected, fed)
    assert bool((found.argmax(-1) == ORDERS[name]).all())


def test_another_alignment_is_not_found() -> None:
    """The method reads the model, not the position: wrong targets, other rows."""
    model, source, expected = _task("copy")
    fed = nn.functional.pad(expected[:, :-1], (1, 0), value=START)
    other = expected.roll(1, dims=1)
    found = SequenceAttentionGradient(model).attribute(source, other, fed)
    assert torch.equal(found.argmax(-1)[0], torch.arange(LENGTH).roll(1))
