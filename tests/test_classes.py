"""Labels and names of classes, wherever they are handed in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from captum_attngrad._classes import check_labels, check_seed
from captum_attngrad.evaluation import compare
from captum_attngrad.metrics import ParameterRandomization
from captum_attngrad.metrics.functional import (
    comprehensiveness,
    intra_class_cohesion,
    silhouette,
)
from captum_attngrad.models import AttentionLSTMClassifier, trained_lstm
from captum_attngrad.text import TextModel, WordTokenizer
from captum_attngrad.visualization import text_records
from tests.evaluation.planted import planted_text_model
from tests.text.test_text_model import bert_text_model, lstm_text_model

TEXTS = ["good film", "bad plot"]


def test_whole_numbers_of_any_kind_are_labels() -> None:
    given = [0, 1.0, np.int64(2), np.float32(1), torch.tensor(2), torch.tensor([0.0])]
    assert check_labels("labels", given, 3) == [0, 1, 2, 1, 2, 0]
    assert check_labels("labels", torch.tensor([1, 0]), 2) == [1, 0]


@pytest.mark.parametrize(
    "label", [0.7, "1", None, float("nan"), float("inf"), 1j, [0, 1], b"1"]
)
def test_what_is_no_whole_number_is_named(label: Any) -> None:
    with pytest.raises(ValueError, match=r"labels holds .* at place 1; expected the w"):
        compare(planted_text_model(), TEXTS, labels=[0, label])


@pytest.mark.parametrize("label", [-1, 2, 2.0, 10**30])
def test_what_is_no_class_is_named(label: Any) -> None:
    with pytest.raises(ValueError, match="the model has 2 classes, so expected 0 to 1"):
        compare(planted_text_model(), TEXTS, labels=[0, label])


@pytest.mark.parametrize("target", [0.7, [0.7, 0], torch.tensor([0.7, 1.0])])
def test_targets_of_metrics_are_whole_numbers(target: Any) -> None:
    text_model = planted_text_model()
    batch = text_model.batch(TEXTS)
    with pytest.raises((TypeError, ValueError), match=r"target .*integers|whole"):
        comprehensiveness(
            text_model.probabilities,
            batch.input_ids,
            torch.rand(2, 2),
            target,
            1,
            additional_forward_args=batch.forward_args,
        )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0.7, 1.0]), r"target holds .*0\.7.* at place 0"),
        (torch.tensor([0, 2]), "target holds .*; the model has 2 classes"),
        (torch.tensor([0]), "target has 1 entries for 2 texts"),
    ],
)
def test_targets_of_metrics_that_explain_again(target: Any, message: str) -> None:
    text_model = planted_text_model()
    batch = text_model.batch(TEXTS)

    def explain(ids: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return torch.rand(ids.shape)

    with pytest.raises(ValueError, match=message):
        ParameterRandomization()(text_model, batch, target, explain)


@pytest.mark.parametrize("max_length", [0, -1, 2.5, "a"])
def test_lengths_are_whole_numbers(max_length: Any) -> None:
    with pytest.raises(ValueError, match=f"max_length is {max_length!r}; expected"):
        bert_text_model(max_length=max_length)


@pytest.mark.parametrize("metric", [intra_class_cohesion, silhouette])
def test_classes_of_metrics_are_whole_numbers(metric: Any) -> None:
    with pytest.raises(ValueError, match=r"classes holds 0\.7.* at place 1"):
        metric(torch.rand(3, 2), torch.tensor([0.0, 0.7, 1.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="classes holds -1; expected 0 or more"):
        metric(torch.rand(3, 2), torch.tensor([0, -1, 1]))
    whole = metric(torch.rand(3, 2), torch.tensor([0.0, 1.0, 1.0]))
    assert whole.shape == (3,)


@pytest.mark.parametrize("column", ["pred_class", "true_class", "attr_class"])
def test_classes_of_records_are_whole_numbers(column: str) -> None:
    arguments: dict[str, Any] = dict.fromkeys(
        ("pred_class", "true_class", "attr_class"), 1
    )
    arguments |= {column: torch.tensor([1.0])}
    scores = torch.tensor([[0.5, -0.5]])
    (record,) = text_records([["a", "b"]], scores, 0.5, **arguments)
    assert getattr(record, column) == 1
    assert isinstance(getattr(record, column), int)
    for wrong, message in (
        (0.7, rf"{column} holds 0\.7 at place 0; expected the whole number"),
        (-1, f"{column} holds -1; expected 0 or more"),
        (None, f"{column} holds None"),
    ):
        with pytest.raises(ValueError, match=message):
            text_records([["a", "b"]], scores, 0.5, **{**arguments, column: wrong})
    with pytest.raises(ValueError, match=rf"{column} holds 0\.7 at place 1"):
        text_records(
            [["a"], ["b"]],
            torch.ones(2, 1),
            0.5,
            **{**arguments, column: ["name", 0.7]},
        )


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("ab", TypeError, "class_names is the string 'ab'; expected a name for each"),
        ((0, 1), TypeError, r"class_names\[0\] is 0; expected a string"),
        ((), ValueError, "class_names is empty"),
    ],
)
def test_names_are_names(names: Any, error: type[Exception], message: str) -> None:
    model = AttentionLSTMClassifier(3)
    with pytest.raises(error, match=message):
        TextModel.from_torch(
            model,
            WordTokenizer(),
            lambda tokens: [1] * len(tokens),
            embedding=model.embedding,
            class_names=names,
        )


@pytest.mark.parametrize("n_names", [1, 3])
def test_there_is_a_name_for_each_class(n_names: int) -> None:
    model = lstm_text_model().model
    text_model = TextModel(
        **{**vars(lstm_text_model()), "class_names": ("a", "b", "c")[:n_names]}
    )
    batch = text_model.batch(["good film"])
    message = rf"class_names has {n_names} entries \(a.*shape \(1, 2\)"
    for function in (text_model.probabilities, text_model.log_odds):
        with pytest.raises(ValueError, match=message):
            function(batch.input_ids, batch.attention_mask)
    with pytest.raises(ValueError, match=message):
        compare(text_model, ["good film"], methods=["random"], show_progress=False)
    assert not model.training


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, 1.0, "1", None])
def test_seeds_are_whole_numbers_that_fit(seed: Any) -> None:
    message = r"seed is .*; expected a whole number from 0 to 2\*\*64 - 1"
    with pytest.raises(ValueError, match=message):
        compare(planted_text_model(), TEXTS, seed=seed)
    with pytest.raises(ValueError, match=message):
        trained_lstm(seed=seed)


def test_the_largest_seed_works() -> None:
    assert check_seed(np.uint64(2**64 - 1)) == 2**64 - 1
    result = compare(
        planted_text_model(),
        TEXTS,
        methods=["random", "lime", "gradient_shap"],
        metrics=["comprehensiveness", "silhouette"],
        seed=2**64 - 1,
        show_progress=False,
    )
    assert not result.failures
    assert "comprehensiveness" in result.table()
