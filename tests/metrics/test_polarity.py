"""The strongest token's sign against the sign of its effect."""

import math

import torch

from captum_attngrad.metrics import PolarityViolation
from captum_attngrad.metrics.functional import polarity_violation
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

WEIGHTS = torch.tensor([0.0, 3.0, 1.0, -2.0]).double()


def forward(ids: torch.Tensor) -> torch.Tensor:
    log_odds = WEIGHTS[ids].sum(dim=1)
    return torch.stack([-log_odds / 2, log_odds / 2], dim=1).softmax(dim=1)


def test_hand_computed() -> None:
    ids = torch.tensor([[1, 2, 3]] * 4)
    scores = torch.tensor(
        [
            [5.0, 1.0, -4.0],  # strongest "3", positive, and it supports: fine
            [1.0, 1.0, 4.0],  # strongest "-2", positive, but it opposes: violated
            [1.0, 1.0, -4.0],  # strongest "-2", negative: fine
            [-5.0, 1.0, 4.0],  # strongest "3", negative, but it supports: violated
        ]
    )
    metric = PolarityViolation()
    assert metric(forward, ids, scores, 1, 0).tolist() == [0, 1, 0, 1]
    # For the other class every effect turns round.
    assert metric(forward, ids, scores, 0, 0).tolist() == [1, 0, 1, 0]


def test_nothing_to_judge_is_nan() -> None:
    ids = torch.tensor([[1, 0, 3]])
    metric = PolarityViolation()
    assert math.isnan(metric(forward, ids, torch.zeros(1, 3), 1, 0).item())
    no_effect = torch.tensor([[1.0, 5.0, 1.0]])
    assert math.isnan(metric(forward, ids, no_effect, 1, 0).item())


def test_equal_magnitudes_go_to_the_earlier_token() -> None:
    ids = torch.tensor([[3, 1]])
    scores = torch.tensor([[2.0, -2.0]])
    assert PolarityViolation()(forward, ids, scores, 1, 0).item() == 1


def test_pure_function_keeps_the_effects_precision() -> None:
    effect = torch.tensor([1e-300, -1e-300], dtype=torch.float64)
    value = polarity_violation(torch.tensor([1.0, 1.0]), effect)
    assert value.tolist() == [0, 1]


def test_truth_never_violates_and_random_half_the_time() -> None:
    for module, texts in (
        (BagOfWords(), random_texts(80)),
        (PlantedAttention(), planted_texts(60)),
    ):
        model = text_model_of(module)
        batch = batch_of(texts)
        target = predicted(model, batch)
        shares = []
        for explain in (occlusion(model), random_scores()):
            value = PolarityViolation()(
                model.probabilities,
                batch.input_ids,
                explain(batch.input_ids, batch.attention_mask, target),
                target,
                UNK,
                batch.attributable,
                batch.attention_mask,
            )
            shares.append(value.nanmean().item())
        assert shares[0] == 0
        assert 0.25 < shares[1] < 0.75
