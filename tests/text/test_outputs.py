"""What a model's outputs mean: one class, any labels, or no class at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_attngrad import log_odds
from captum_attngrad.evaluation import compare
from captum_attngrad.evaluation.registry import resolve_methods
from captum_attngrad.text import TextModel

pytest.importorskip("transformers")

from tests.tiny_bert import tiny_bert, tiny_tokenizer

TEXTS = ["a good film", "the unwatchable plot", "bad"]


def model_of(problem_type: str | None, num_labels: int = 3, **config: Any) -> Any:
    model = tiny_bert(num_labels)
    model.config.problem_type = problem_type
    for name, value in config.items():
        setattr(model.config, name, value)
    return model


def text_model_of(problem_type: str | None, num_labels: int = 3) -> TextModel:
    return TextModel.from_huggingface(
        model_of(problem_type, num_labels), tiny_tokenizer()
    )


@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
def test_one_class_is_a_softmax(problem_type: str | None) -> None:
    text_model = text_model_of(problem_type)
    batch = text_model.batch(TEXTS)
    args = (batch.input_ids, *batch.forward_args)
    logits = text_model.logits(*args)
    expected = logits.double().softmax(dim=1)
    torch.testing.assert_close(text_model.probabilities(*args), expected)
    torch.testing.assert_close(text_model.log_odds(*args), log_odds(logits))
    assert text_model.outputs.exclusive


@pytest.mark.parametrize("num_labels", [1, 3])
def test_any_labels_are_sigmoids(num_labels: int) -> None:
    text_model = text_model_of("multi_label_classification", num_labels)
    batch = text_model.batch(TEXTS)
    args = (batch.input_ids, *batch.forward_args)
    logits = text_model.logits(*args)
    p = text_model.probabilities(*args)
    torch.testing.assert_close(p, logits.double().sigmoid())
    # The log-odds of each label by itself.
    expected = (p / (1 - p)).log()
    torch.testing.assert_close(
        text_model.log_odds(*args).double(), expected, rtol=1e-4, atol=1e-4
    )
    embedded = text_model.embed(batch.input_ids)
    torch.testing.assert_close(
        text_model.probabilities_from_embeddings(embedded, *batch.forward_args), p
    )
    assert not text_model.outputs.exclusive


def test_labels_of_a_text_are_compared_one_by_one() -> None:
    text_model = text_model_of("multi_label_classification")
    names = ["attention_gradient", "joint_integrated_gradients", "leave_one_out"]
    result = compare(
        text_model,
        TEXTS,
        methods=names,
        metrics=["comprehensiveness", "sufficiency", "infidelity", "cohesion"],
        show_progress=False,
    )
    assert not result.failures
    for text, words in zip(result.texts, TEXTS, strict=True):
        batch = text_model.batch([words])
        with torch.no_grad():
            logits = text_model.logits(batch.input_ids, *batch.forward_args)[0]
        assert text.predicted == int(logits.argmax())
        assert abs(text.probability - float(logits.double().sigmoid().max())) < 1e-6
    # Leave-one-out of the label's own probability, by the definition.
    batch = text_model.batch(TEXTS[:1])
    (method,) = resolve_methods(["leave_one_out"])
    scores = method.function(text_model, batch, torch.tensor([1]))[0]
    without = batch.input_ids.clone()
    without[0, 2] = 4
    with torch.no_grad():
        pair = [
            text_model.logits(ids, *batch.forward_args).double().sigmoid()[0, 1]
            for ids in (batch.input_ids, without)
        ]
    assert abs(float(pair[0] - pair[1] - scores[2])) < 1e-6


def test_what_needs_one_class_is_refused_for_labels() -> None:
    text_model = text_model_of("multi_label_classification")
    for metric in ("decision_flip", "token_attack_auroc", "neighbors_spearman"):
        with pytest.raises(ValueError, match=rf"{metric} ask whether .*multi-label"):
            compare(text_model, TEXTS, metrics=[metric], show_progress=False)
    with pytest.raises(ValueError, match="labels gives one class for each text"):
        compare(text_model, TEXTS, labels=[0, 1, 2], metrics=["sufficiency"])


@pytest.mark.parametrize(
    ("problem_type", "num_labels"), [("regression", 1), ("regression", 2), (None, 1)]
)
def test_regression_is_refused(problem_type: str | None, num_labels: int) -> None:
    with pytest.raises(ValueError, match=rf"has {num_labels} output\(s\) and is a reg"):
        text_model_of(problem_type, num_labels)


def test_other_settings_are_named() -> None:
    with pytest.raises(ValueError, match="has the problem_type 'ranking'; expected"):
        text_model_of("ranking")
    with pytest.raises(ValueError, match=r"has 1 output\(s\); expected a classifier"):
        text_model_of("single_label_classification", 1)
    model = model_of(None, id2label={0: "a", 1: "b", 3: "c"})
    with pytest.raises(ValueError, match="id2label has no name for class 2"):
        TextModel.from_huggingface(model, tiny_tokenizer())


def test_a_tokenizer_that_does_not_fit_is_named() -> None:
    model = tiny_bert()
    model.resize_token_embeddings(9)
    with pytest.raises(ValueError, match="ids up to 14, and the embedding of BertFor"):
        TextModel.from_huggingface(model, tiny_tokenizer())
    with pytest.raises(ValueError, match="knows no tokens but its special ones"):
        TextModel.from_huggingface(tiny_bert(), _empty_tokenizer())
    tokenizer = tiny_tokenizer()
    text_model = TextModel.from_huggingface(tiny_bert(), tokenizer)
    tokenizer.add_tokens(["brilliant"])
    with pytest.raises(ValueError, match=r"ids up to 15.*resize_token_embeddings"):
        text_model.batch(["a brilliant film"])


def _empty_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"[PAD]": 0, "[UNK]": 1}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")),
        pad_token="[PAD]",
        unk_token="[UNK]",
    )
