"""Prompts whose features are words, sentences, messages and sources."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from captum.attr import TextTemplateInput
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad.attr.llm._prompt import read_prompt
from captum_attngrad.attr.llm._segments import segments
from captum_attngrad.attr.llm.inputs import ChatInput, SourcesInput, TextSegmentInput

TEXT = (
    'Dr. Smith paid 3.50 dollars, e.g. twice. "Really?" he asked. J. Doe left!\n'
    "The text is wrapped\nhere.\n\n  New passage\n"
)


class Characters:
    """A fast tokenizer with one token a character, and a start token."""

    chat_template = "any"
    start = 1

    def encode(
        self, text: str, return_tensors: str | None = None, add_special_tokens=True
    ) -> Any:
        ids = [self.start] * add_special_tokens + [ord(c) % 90 + 2 for c in text]
        return torch.tensor([ids]) if return_tensors else ids

    def __call__(
        self, text: str, return_offsets_mapping: bool, add_special_tokens: bool
    ) -> dict[str, Any]:
        offsets = [(0, 0)] * add_special_tokens
        offsets += [(i, i + 1) for i in range(len(text))]
        return {
            "input_ids": self.encode(text, None, add_special_tokens),
            "offset_mapping": offsets,
        }

    def apply_chat_template(
        self,
        messages: list[dict[str, str]],
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> str:
        assert not tokenize
        lines = [f"<{m['role']}>{m['content'].strip()}</>" for m in messages]
        return "".join(lines) + "<assistant>" * add_generation_prompt


def cut(by: Any) -> list[str]:
    return [TEXT[slice(*span)] for span in segments(TEXT, by)]


def test_segments() -> None:
    assert cut("sentence") == [
        "Dr. Smith paid 3.50 dollars, e.g. twice.",
        '"Really?" he asked.',
        "J. Doe left!",
        "The text is wrapped\nhere.",
        "New passage",
    ]
    assert cut("line")[1:] == ["The text is wrapped", "here.", "New passage"]
    assert cut("passage")[1:] == ["New passage"]
    assert cut("word")[:4] == ["Dr.", "Smith", "paid", "3.50"]
    with pytest.raises(ValueError, match="by='page' is unknown"):
        segments(TEXT, "page")  # type: ignore[arg-type]


@given(st.text(alphabet="aB .!?\n\t\"'é。", max_size=60))
def test_segments_cover_all_that_is_not_white_space(text: str) -> None:
    for by in ("word", "sentence", "line", "passage"):
        spans = segments(text, by)  # type: ignore[arg-type]
        assert all(a < b for a, b in spans)
        assert all(b <= c for (_, b), (c, _) in itertools.pairwise(spans))
        inside = "".join(text[a:b] for a, b in spans)
        assert "".join(inside.split()) == "".join(text.split())
        assert all(text[a:b] == text[a:b].strip() for a, b in spans)


def test_segments_are_features() -> None:
    inp = TextSegmentInput(" It is late.  Go home. ")
    assert isinstance(inp, TextTemplateInput)
    assert inp.values == ["It is late.", "Go home."]
    assert inp.to_model_input() == " It is late.  Go home. "
    absent = torch.tensor([[0.0, 1.0]])
    assert inp.to_model_input(absent) == "   Go home. "
    other = TextSegmentInput(" It is late.  Go home. ", baseline="[...]")
    assert other.to_model_input(absent) == " [...]  Go home. "


def test_each_token_belongs_to_the_segment_it_was_made_from() -> None:
    prompt = read_prompt(TextSegmentInput("Ab. Cd."), Characters())
    assert prompt.features == ["Ab.", "Cd."]
    # The start token and the space between the sentences belong to neither.
    expected = torch.tensor([[0, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 1]])
    assert prompt.shares is not None
    assert torch.equal(prompt.shares.T, expected.double())


def test_given_spans() -> None:
    inp = TextSegmentInput("one two three", spans=[(0, 3), (8, 13)])
    assert inp.values == ["one", "three"]
    for spans in ([(0, 3), (2, 5)], [(3, 3)], [(0, 99)], [(-1, 2)]):
        with pytest.raises(ValueError, match=r"expected \(start, end\) in characters"):
            TextSegmentInput("one two three", spans=spans)


@pytest.mark.parametrize("text", ["", " \n "])
def test_a_text_without_segments(text: str) -> None:
    with pytest.raises(ValueError, match="no segments"):
        TextSegmentInput(text)


MESSAGES = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "The door is red. What color is it?"},
]


def test_messages_are_features() -> None:
    inp = ChatInput(MESSAGES, Characters())
    assert inp.values == ["Be brief.", MESSAGES[1]["content"]]
    text = "<system>Be brief.</><user>The door is red. What color is it?</><assistant>"
    assert inp.to_model_input() == text
    prompt = read_prompt(inp, Characters())
    # The template has put the special tokens in place.
    assert prompt.ids[0, 0] != Characters.start
    assert prompt.ids.shape[1] == len(text)


def test_sentences_of_some_messages() -> None:
    inp = ChatInput(MESSAGES, Characters(), "sentence", roles=["user"])
    assert inp.values == ["The door is red.", "What color is it?"]
    without = inp.to_model_input(torch.tensor([[0.0, 1.0]]))
    assert without == "<system>Be brief.</><user>What color is it?</><assistant>"


@pytest.mark.parametrize(
    ("messages", "error", "match"),
    [
        ([], ValueError, "messages is empty"),
        (["hello"], TypeError, r"messages\[0\] is 'hello', expected a dict"),
        ([{"role": "user"}], TypeError, "with texts as 'role' and 'content'"),
    ],
)
def test_wrong_messages(messages: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ChatInput(messages, Characters())


def test_a_tokenizer_without_a_chat_template() -> None:
    with pytest.raises(ValueError, match="object has no chat template"):
        ChatInput(MESSAGES, object())


def test_sources_are_features() -> None:
    sources = ["The museum opens at nine.", "A {ticket} costs 12 coins."]
    inp = SourcesInput(sources, "What does a {ticket} cost?")
    assert inp.values == sources
    assert inp.to_model_input() == (
        "The museum opens at nine.\n\nA {ticket} costs 12 coins.\n\n"
        "Question: What does a {ticket} cost?\nAnswer:"
    )
    prompt = read_prompt(inp, Characters())
    assert prompt.shares is not None
    counts = prompt.shares.sum(dim=0).tolist()
    assert counts == [len(source) for source in sources]


def test_sources_in_a_template() -> None:
    inp = SourcesInput(["A.", "B."], "Q?", "{question} {{x}} {sources}!", separator="|")
    assert inp.to_model_input() == "Q? {x} A.|B.!"
    inp = SourcesInput(["A.", "B."], "Q?", tokenizer=Characters())
    assert inp.to_model_input() == "<user>A.\n\nB.\n\nQuestion: Q?</><assistant>"
    assert not inp.add_special_tokens


@pytest.mark.parametrize(
    "template", ["{sources}", "{question}", "{sources} {question} {sources}", "{x}"]
)
def test_a_template_without_its_fields(template: str) -> None:
    with pytest.raises(ValueError, match=r"must have the fields \{sources\}"):
        SourcesInput(["A."], "Q?", template)


@pytest.mark.parametrize(("sources", "match"), [("A.", "a list"), (["A.", " "], "1")])
def test_wrong_sources(sources: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SourcesInput(sources, "Q?")
