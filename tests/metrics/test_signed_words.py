"""The positive-word and the inhibitor-word test."""

import math

import pytest
import torch

from captum_attngrad.metrics import InhibitorWords, PositiveWords
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
    sigmoid,
    text_model_of,
)

WEIGHTS = torch.tensor([0.0, 3.0, 1.0, -2.0, 0.5, -0.25]).double()


def forward(ids: torch.Tensor) -> torch.Tensor:
    log_odds = WEIGHTS[ids].sum(dim=1)
    return torch.stack([-log_odds / 2, log_odds / 2], dim=1).softmax(dim=1)


IDS = torch.tensor([[1, 2, 3, 4, 5]])  # log-odds 3 + 1 - 2 + 0.5 - 0.25 = 2.25


def test_hand_computed_positive_words() -> None:
    # 20%: "3" goes; 80%: four tokens, of which "3", "1" and "0.5" are positive.
    value = PositiveWords(bins=(0.2, 0.8))(forward, IDS, WEIGHTS[IDS], 1, 0)
    expected = sigmoid(2.25) - (sigmoid(-0.75) + sigmoid(-2.25)) / 2
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_hand_computed_inhibitor_words() -> None:
    # 20%: "-2" goes; 60%: three lowest, of which "-2" and "-0.25" are negative.
    value = InhibitorWords(bins=(0.2, 0.6))(forward, IDS, WEIGHTS[IDS], 1, 0)
    expected = (sigmoid(4.25) + sigmoid(4.5)) / 2 - sigmoid(2.25)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_other_class_turns_words_around() -> None:
    value = InhibitorWords(bins=(0.2,))(forward, IDS, -WEIGHTS[IDS], 0, 0)
    assert value.item() == pytest.approx(sigmoid(0.75) - sigmoid(-2.25), abs=1e-12)


def test_no_inhibitors_named_is_not_a_zero() -> None:
    ids = IDS.repeat(3, 1)
    scores = torch.stack([WEIGHTS[IDS[0]].abs(), torch.zeros(5), WEIGHTS[IDS[0]]])
    value = InhibitorWords()(forward, ids, scores, 1, 0)
    assert value.isnan().tolist() == [True, True, False]
    assert InhibitorWords.undefined == "no inhibitors named"
    value = PositiveWords()(forward, ids, -scores, 1, 0)
    assert value.isnan().tolist() == [True, True, False]
    assert PositiveWords.undefined == "no positive words named"


def test_negative_scores_of_padding_do_not_count() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 1.0, -9.0]])
    mask = torch.tensor([[True, True, True, True, False]])
    value = InhibitorWords()(forward, IDS, scores, 1, 0, attributable=mask)
    assert math.isnan(value.item())


@pytest.mark.parametrize("metric", [PositiveWords(), InhibitorWords()])
def test_truth_beats_random_on_a_bag_of_words(
    metric: PositiveWords | InhibitorWords,
) -> None:
    model = text_model_of(BagOfWords())
    batch = batch_of(random_texts(80))
    target = predicted(model, batch)
    means = {}
    for name, explain in (("truth", occlusion(model)), ("random", random_scores())):
        scores = explain(batch.input_ids, batch.attention_mask, target)
        for sign in (1, -1):
            value = metric(
                model.probabilities,
                batch.input_ids,
                sign * scores,
                target,
                UNK,
                batch.attributable,
                batch.attention_mask,
            )
            means[name, sign] = value.nanmean().item()
    assert means["truth", 1] > means["random", 1] + 0.03
    assert means["random", 1] > means["truth", -1] + 0.03
    assert means["truth", 1] > 0
    assert means["truth", -1] < 0


def test_planted_word_is_the_positive_word() -> None:
    model = text_model_of(PlantedAttention())
    batch = batch_of(planted_texts())
    target = predicted(model, batch)
    planted = (batch.input_ids == 2) | (batch.input_ids == 3)
    metric = PositiveWords(bins=(0.05,))
    means = [
        metric(
            model.probabilities,
            batch.input_ids,
            scores,
            target,
            UNK,
            batch.attributable,
            batch.attention_mask,
        )
        .nanmean()
        .item()
        for scores in (
            planted.float(),
            random_scores()(batch.input_ids, batch.attention_mask, target),
        )
    ]
    assert means[0] > means[1] + 0.1


def test_bins_are_checked() -> None:
    for metric in (PositiveWords, InhibitorWords):
        with pytest.raises(ValueError, match=r"bins holds 3\.0"):
            metric(bins=(3,))
