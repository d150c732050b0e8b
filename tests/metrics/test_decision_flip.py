"""How many tokens have to go until the class changes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad.metrics import DecisionFlip
from tests.metrics.known import (
    UNK,
    BagOfWords,
    PlantedAttention,
    batch_of,
    occlusion,
    planted_texts,
    predicted,
    random_scores,
    random_texts,
    text_model_of,
)

WEIGHTS = torch.tensor([-1.0, 3.0, 1.0, -2.0, 0.5, 0.0]).double()


def forward(ids: torch.Tensor) -> torch.Tensor:
    """The replacement, 0, speaks for class 0, so that an empty text has a class."""
    log_odds = WEIGHTS[ids].sum(dim=1)
    return torch.stack([-log_odds / 2, log_odds / 2], dim=1).softmax(dim=1)


def test_hand_computed() -> None:
    # Log-odds 3 + 1 + 0.5 + 0.5 = 5. Without "3": 1; without "3" and "1": -1.
    ids = torch.tensor([[4, 1, 4, 2]])
    metric = DecisionFlip()
    assert metric(forward, ids, WEIGHTS[ids], 1, 0).item() == 0.5
    # In the worst order "3" goes last: 3.5, 2, 0 (a tie), and -4 without it.
    assert metric(forward, ids, -WEIGHTS[ids], 1, 0).item() == 1.0
    # With "1" first: 3, and without "3" too -1.
    scores = torch.tensor([[1.0, 2.0, 0.0, 3.0]])
    assert metric(forward, ids, scores, 1, 0).item() == 0.5


def test_no_flip_is_one() -> None:
    ids = torch.tensor([[3, 3]])
    assert DecisionFlip()(forward, ids, torch.ones(1, 2), 0, 0).item() == 1.0


def test_tie_is_not_a_change() -> None:
    # Without "1" the log-odds are 1 - 1 = 0 and both classes have one half.
    ids = torch.tensor([[1, 2]])
    assert DecisionFlip()(forward, ids, torch.tensor([[2.0, 1.0]]), 1, 0).item() == 1.0


def test_third_class_counts() -> None:
    def three(ids: torch.Tensor) -> torch.Tensor:
        gone = (ids == 0).sum(dim=1, keepdim=True) / 10
        return torch.cat([0.5 - gone, 0.1 + gone * 0, 0.4 + gone], dim=1)

    ids = torch.tensor([[1, 1, 1, 1]])
    assert DecisionFlip()(three, ids, torch.ones(1, 4), 0, 0).item() == 0.25


@given(
    words=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    steps=st.sampled_from([1, 4, 20]),
    data=st.data(),
)
def test_equals_one_token_at_a_time(
    words: list[int], steps: int, data: st.DataObject
) -> None:
    n = len(words)
    scores = data.draw(
        st.lists(st.sampled_from([-1.0, 0.0, 2.0]), min_size=n, max_size=n)
    )
    target = data.draw(st.integers(0, 1))
    order = sorted(range(n), key=lambda i: -scores[i])
    expected = 1.0
    for step in range(steps, 0, -1):
        size = math.ceil(round(step / steps * n, 6))
        left = [0 if i in order[:size] else w for i, w in enumerate(words)]
        log_odds = sum(float(WEIGHTS[w]) for w in left) * (1 if target == 1 else -1)
        if log_odds < 0:
            expected = size / n
    ids = torch.tensor([[*words, 1]])
    mask = torch.tensor([[True] * n + [False]])

    def without_last(ids: torch.Tensor) -> torch.Tensor:
        return forward(ids[:, :-1])

    value = DecisionFlip(steps)(
        without_last, ids, torch.tensor([[*scores, 99.0]]), target, 0, mask
    )
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_truth_needs_fewer_words_than_random() -> None:
    for module, texts in (
        (BagOfWords(), random_texts(60)),
        (PlantedAttention(), planted_texts()),
    ):
        model = text_model_of(module)
        batch = batch_of(texts)
        target = predicted(model, batch)
        means = []
        for explain, sign in (
            (occlusion(model), 1),
            (random_scores(), 1),
            (occlusion(model), -1),
        ):
            scores = explain(batch.input_ids, batch.attention_mask, target)
            value = DecisionFlip()(
                model.probabilities,
                batch.input_ids,
                sign * scores,
                target,
                UNK,
                batch.attributable,
                batch.attention_mask,
            )
            means.append(value.mean().item())
        assert means[0] + 0.05 < means[1] < means[2]


def test_steps_are_checked() -> None:
    with pytest.raises(ValueError, match="steps is 0"):
        DecisionFlip(steps=0)
