"""Prompts whose features are what people think in: sentences, messages, sources."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any, Literal

from captum.attr import TextTemplateInput

from captum_attngrad.attr.llm._segments import Span, Unit, checked_spans, segments

Messages = Sequence[dict[str, str]]


class _SegmentedInput(TextTemplateInput):
    """A text of which some spans are features.

    Attributes:
        add_special_tokens (bool): whether the tokenizer adds its special tokens to
            the text, which a chat template has put there already.
    """

    add_special_tokens = True

    def __init__(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        join: Callable[[list[str]], str],
        baseline: str,
    ) -> None:
        # Alternately what is fixed and a feature: gaps has one more item than values.
        cut = [_cut(text, each) for text, each in zip(texts, spans, strict=True)]

        def fill(*values: str) -> str:
            left = iter(values)
            return join(
                [
                    gaps[0] + "".join(next(left) + gap for gap in gaps[1:])
                    for gaps, _ in cut
                ]
            )

        values = [value for _, of_text in cut for value in of_text]
        if not values:
            raise ValueError(
                "The text has no segments, so there are no features to score. Pass a "
                "text with words in it, or other spans."
            )
        super().__init__(fill, values, baselines=[baseline] * len(values))


def _cut(text: str, spans: Sequence[Span]) -> tuple[list[str], list[str]]:
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    gaps = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    return gaps, [text[start:end] for start, end in spans]


class TextSegmentInput(_SegmentedInput):
    r"""
    A prompt whose features are its words, sentences, lines, passages or given spans.

    It is one of Captum's ``TextTemplateInput``s, so that Captum's own methods
    (``LLMAttribution``) take it too; they replace an absent segment by ``baseline``.

    Args:

        text (str): The prompt.
        by (str, optional): What a feature is: ``"word"`` (what white space separates),
                    ``"sentence"``, ``"line"`` or ``"passage"`` (what blank lines
                    separate). A simple rule finds the ends of sentences; pass ``spans``
                    where a better one is at hand.
                    Default: "sentence"
        spans (sequence of (int, int), optional): Start and end of each feature, in
                    characters, in the order of the text and without overlap. It takes
                    the place of ``by``. Text outside the spans belongs to no feature.
                    Default: None
        baseline (str, optional): What methods that ablate features put in the place
                    of an absent one.
                    Default: "", the segment is removed

    Raises:
        ValueError: an unknown ``by``, spans that overlap or leave the text, or a text
            without segments.

    Examples::

        >>> inp = TextSegmentInput("It is late. The shop is shut. Where is milk sold?")
        >>> inp.values
        ['It is late.', 'The shop is shut.', 'Where is milk sold?']
    """

    def __init__(
        self,
        text: str,
        by: Unit = "sentence",
        *,
        spans: Sequence[Span] | None = None,
        baseline: str = "",
    ) -> None:
        found = segments(text, by) if spans is None else checked_spans(text, spans)
        super().__init__([text], [found], lambda texts: texts[0], baseline)


class ChatInput(_SegmentedInput):
    r"""
    Chat messages whose features are the messages, or their words, sentences, lines or
    passages. The tokenizer's chat template makes the prompt; what it adds belongs to
    no feature.

    Args:

        messages (sequence of dict): ``{"role": ..., "content": ...}`` each, with texts
                    as contents.
        tokenizer (Tokenizer): One with a chat template.
        by (str, optional): ``"message"``, or a unit of :class:`TextSegmentInput`.
                    Default: "message"
        roles (sequence of str, optional): The roles whose messages have features.
                    Default: None, all of them
        baseline (str, optional): As for :class:`TextSegmentInput`.
                    Default: ""
        **template_args: Passed on to ``tokenizer.apply_chat_template``;
                    ``add_generation_prompt`` is True unless given.

    Raises:
        TypeError: a message that is not a dict with texts as role and content.
        ValueError: no messages, a tokenizer without a chat template, or as
            :class:`TextSegmentInput`.

    Examples::

        >>> messages = [
        ...     {"role": "system", "content": "Answer in one word."},
        ...     {"role": "user", "content": "The door is red. What color is it?"},
        ... ]
        >>> inp = ChatInput(messages, tokenizer, by="sentence")
        >>> result = LLMAttentionGradient(model, tokenizer).attribute(inp)
    """

    add_special_tokens = False

    def __init__(
        self,
        messages: Messages,
        tokenizer: Any,
        by: Unit | Literal["message"] = "message",
        *,
        roles: Sequence[str] | None = None,
        baseline: str = "",
        **template_args: Any,
    ) -> None:
        texts = _contents(messages)
        options = {"add_generation_prompt": True, **template_args}
        render = _chat_template(tokenizer)

        def join(contents: list[str]) -> str:
            filled = [
                {**message, "content": content}
                for message, content in zip(messages, contents, strict=True)
            ]
            return str(render(filled, tokenize=False, **options))

        spans: list[list[Span]] = []
        for message, text in zip(messages, texts, strict=True):
            if roles is not None and message["role"] not in roles:
                spans.append([])
            elif by == "message":
                passage = segments(text, "word")
                spans.append([(passage[0][0], passage[-1][1])] if passage else [])
            else:
                spans.append(segments(text, by))
        super().__init__(texts, spans, join, baseline)


def _contents(messages: Messages) -> list[str]:
    if not messages:
        raise ValueError("messages is empty. Pass at least the user's message.")
    for i, message in enumerate(messages):
        given: Any = message
        names = ("role", "content")
        if not isinstance(given, dict) or not all(
            isinstance(given.get(name), str) for name in names
        ):
            raise TypeError(
                f"messages[{i}] is {message!r:.80}, expected a dict with texts as "
                "'role' and 'content'."
            )
    return [message["content"] for message in messages]


def _chat_template(tokenizer: Any) -> Callable[..., Any]:
    render = getattr(tokenizer, "apply_chat_template", None)
    if render is None or getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has no chat template, so messages cannot be "
            "made into a prompt. Use the tokenizer of a chat model, or write the "
            "prompt out and pass a TextSegmentInput."
        )
    found: Callable[..., Any] = render
    return found


_TEMPLATE = "{sources}\n\nQuestion: {question}\nAnswer:"


class SourcesInput(_SegmentedInput):
    r"""
    Retrieved sources and a question, with the sources as features: which of them did
    the answer rest on?

    Args:

        sources (sequence of str): The texts; each is one feature.
        question (str): The question. It belongs to no feature.
        template (str, optional): The prompt, with ``{sources}`` and ``{question}``,
                    each exactly once.
                    Default: the sources, ``Question: {question}`` and ``Answer:``
        separator (str, optional): What stands between the sources.
                    Default: a blank line
        tokenizer (Tokenizer, optional): If given, the prompt is a user's message in
                    its chat template. The default template then ends with the
                    question.
                    Default: None
        baseline (str, optional): As for :class:`TextSegmentInput`.
                    Default: ""

    Raises:
        ValueError: no sources, an empty source, a template without ``{sources}`` or
            ``{question}``, or a tokenizer without a chat template.

    Examples::

        >>> sources = ["The museum opens at nine.", "A ticket costs 12 coins."]
        >>> inp = SourcesInput(sources, "What does a ticket cost?", tokenizer=tokenizer)
        >>> result = LLMAttentionGradient(model, tokenizer).attribute(inp)
    """

    def __init__(
        self,
        sources: Sequence[str],
        question: str,
        template: str | None = None,
        *,
        separator: str = "\n\n",
        tokenizer: Any = None,
        baseline: str = "",
    ) -> None:
        if isinstance(sources, str) or not sources:
            raise ValueError(
                f"sources is {sources!r:.80}, expected a list of texts, one a source."
            )
        for i, source in enumerate(sources):
            if not source.strip():
                raise ValueError(f"sources[{i}] is empty. Leave empty sources out.")
        if template is None:
            template = _TEMPLATE
            if tokenizer is not None:
                template = template.removesuffix("\nAnswer:")
        pieces = _pieces(template)
        joined, spans = "", []
        for piece in pieces:
            if piece == "{sources}":
                for i, source in enumerate(sources):
                    joined += separator * (i > 0)
                    spans.append((len(joined), len(joined) + len(source)))
                    joined += source
            else:
                joined += question if piece == "{question}" else piece
        render = None if tokenizer is None else _chat_template(tokenizer)
        self.add_special_tokens = render is None

        def join(texts: list[str]) -> str:
            if render is None:
                return texts[0]
            message = {"role": "user", "content": texts[0]}
            return str(render([message], tokenize=False, add_generation_prompt=True))

        super().__init__([joined], [spans], join, baseline)


def _pieces(template: str) -> list[str]:
    """A template cut at its two fields."""
    pieces: list[str] = []
    for literal, field, _, _ in string.Formatter().parse(template):
        pieces += [literal, *([] if field is None else [f"{{{field}}}"])]
    fields = sorted(piece for piece in pieces if piece in ("{sources}", "{question}"))
    if fields != ["{question}", "{sources}"]:
        raise ValueError(
            f"template={template!r:.200} must have the fields {{sources}} and "
            "{question} once each, and no others."
        )
    return pieces
