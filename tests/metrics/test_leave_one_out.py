"""Agreement with what each token's removal does on its own."""

import math

import torch

from captum_attngrad.metrics import LeaveOneOutAgreement
from captum_attngrad.metrics.functional import leave_one_out_masks
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

WEIGHTS = torch.tensor([0.0, 3.0, 1.0, -2.0, 0.5]).double()


def forward(ids: torch.Tensor) -> torch.Tensor:
    log_odds = WEIGHTS[ids].sum(dim=1)
    return torch.stack([-log_odds / 2, log_odds / 2], dim=1).softmax(dim=1)


def test_hand_computed() -> None:
    # Effects are in the order of the weights 3, 1, -2, 0.5: of the six pairs, the
    # scores have one (the last two) the other way round.
    ids = torch.tensor([[1, 2, 3, 4]])
    scores = torch.tensor([[9.0, 5.0, 1.0, 0.0]])
    value = LeaveOneOutAgreement()(forward, ids, scores, 1, 0)
    assert value.item() == (5 - 1) / 6
    assert LeaveOneOutAgreement()(forward, ids, -scores, 1, 0).item() == -4 / 6


def test_no_order_is_nan() -> None:
    ids = torch.tensor([[1, 2, 3]])
    metric = LeaveOneOutAgreement()
    assert math.isnan(metric(forward, ids, torch.ones(1, 3), 1, 0).item())
    same = torch.tensor([[1, 1, 1]])
    assert math.isnan(metric(forward, same, torch.rand(1, 3), 1, 0).item())


def test_masks() -> None:
    masks = leave_one_out_masks(torch.tensor([[True, True, False]]))
    assert masks.int().tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0, 0]]]


def test_padding_is_left_alone() -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    mask = torch.tensor([[True, True, True, False]])
    scores = torch.tensor([[3.0, 2.0, 1.0, float("nan")]])
    value = LeaveOneOutAgreement()(forward, ids, scores, 1, 0, mask)
    assert value.item() == 1


def test_truth_agrees_and_random_does_not() -> None:
    for module, texts in (
        (BagOfWords(), random_texts(60)),
        (PlantedAttention(), planted_texts(60)),
    ):
        model = text_model_of(module)
        batch = batch_of(texts)
        target = predicted(model, batch)
        means = []
        for explain in (occlusion(model), random_scores()):
            value = LeaveOneOutAgreement()(
                model.probabilities,
                batch.input_ids,
                explain(batch.input_ids, batch.attention_mask, target),
                target,
                UNK,
                batch.attributable,
                batch.attention_mask,
            )
            means.append(value.nanmean().item())
        assert means[0] > 0.95
        assert abs(means[1]) < 0.2
