"""Views of an explained answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_attngrad import LLMAttentionGradient
from captum_attngrad.attr.llm.inputs import TextSegmentInput
from captum_attngrad.attr.llm.result import AnswerAttribution
from tests.attr.language_models import WordTokenizer, decoder

PROMPT = "the cat sat on the mat . The dog ran to a house ."
ANSWER = "the big dog"


@pytest.fixture(scope="module")
def result() -> AnswerAttribution:
    return explained()


def explained(inp: Any = PROMPT, **options: Any) -> AnswerAttribution:
    llm = LLMAttentionGradient(decoder(), WordTokenizer())
    return llm.attribute(inp, ANSWER, **options)


def close(found: Tensor | None, expected: Tensor | None) -> None:
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected)


def test_top(result: AnswerAttribution) -> None:
    best = result.top(2)
    assert [each.score for each in best] == sorted(result.seq_attr.tolist())[:-3:-1]
    for name, score, place in best:
        assert result.input_tokens[place] == name
        assert float(result.seq_attr[place]) == score
    assert len(result.top(99)) == len(PROMPT.split())
    with pytest.raises(ValueError, match="k=0"):
        result.top(0)


def test_sentences_have_the_sums_of_their_tokens(result: AnswerAttribution) -> None:
    by_sentence = result.aggregate("sentence")
    assert by_sentence.input_tokens == [PROMPT[:24], PROMPT[25:]]
    assert result.token_attr is not None
    sums = torch.stack([result.seq_attr[:7].sum(), result.seq_attr[7:].sum()])
    close(by_sentence.seq_attr, sums)
    assert by_sentence.token_attr is not None
    close(by_sentence.token_attr.sum(1), result.token_attr.sum(1))
    close(by_sentence.aggregate("word").seq_attr, result.seq_attr)
    # The same as explaining the sentences.
    close(by_sentence.token_attr, explained(TextSegmentInput(PROMPT)).token_attr)
    given = result.aggregate(spans=[(4, 7)])
    assert given.input_tokens == ["cat"]
    close(given.seq_attr, result.seq_attr[1:2])


def test_parts_of_the_answer(result: AnswerAttribution) -> None:
    assert result.token_attr is not None
    for part in (result.span("big dog"), result.span(1, 3), result.span("g do")):
        assert part.output_tokens == ["big", "dog"]
        close(part.token_attr, result.token_attr[1:])
        close(part.seq_attr, result.token_attr[1:].sum(0))
    one = result.span(2)
    assert one.output_tokens == ["dog"]
    close(one.seq_attr, result.token_attr[2])
    close(one.aggregate().seq_attr, result.aggregate().token_attr[2])
    for wrong in ((3,), (-1, 1), (2, 2)):
        with pytest.raises(ValueError, match="out of range"):
            result.span(*wrong)
    with pytest.raises(ValueError, match="'house' is not in the answer 'the big dog'"):
        result.span("house")
    with pytest.raises(ValueError, match="goes with a token"):
        result.span("dog", 3)
    with pytest.raises(ValueError, match="per_token=True"):
        explained(per_token=False).span("dog")


@pytest.mark.parametrize("per_token", [True, False])
def test_json(tmp_path: Path, per_token: bool) -> None:
    result = explained(per_token=per_token)
    text = result.to_json(tmp_path / "result.json")
    for found in (
        AnswerAttribution.from_json(text),
        AnswerAttribution.from_json(tmp_path / "result.json"),
    ):
        assert found.input_tokens == result.input_tokens
        close(found.seq_attr.double(), result.seq_attr.double())
        assert (found.token_attr is None) is not per_token
        close(found.aggregate().seq_attr, result.aggregate().seq_attr.float())
    for wrong in ("{}", "[1]", "no json", text.replace('"format": 1', '"format": 9')):
        with pytest.raises(ValueError, match=r"text is not a result that .*to_json"):
            AnswerAttribution.from_json(wrong)


def test_frame(result: AnswerAttribution) -> None:
    pytest.importorskip("pandas")
    frame = result.to_frame()
    assert list(frame.columns) == ["feature", "score", "0 the", "1 big", "2 dog"]
    assert frame["score"].tolist() == result.seq_attr.tolist()


def test_a_tokenizer_without_offsets() -> None:
    llm = LLMAttentionGradient(decoder(), WordTokenizer(offsets=False))
    result = llm.attribute(PROMPT, ANSWER)
    with pytest.raises(ValueError, match="did not say which characters"):
        result.aggregate()


def test_a_probability_has_the_product() -> None:
    llm = LLMAttentionGradient(decoder(), WordTokenizer(), "prob")
    result = llm.attribute(PROMPT, ANSWER)
    words = result.aggregate("word")
    close(words.seq_attr, result.seq_attr)
    close(words.token_attr, result.token_attr)
