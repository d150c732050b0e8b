"""What an answer rested on, by tokens or by larger features, and parts of it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from captum.attr import LLMAttributionResult
from torch import Tensor

from captum_attngrad._files import write_file
from captum_attngrad.attr.llm._prompt import Span, shares_of_spans
from captum_attngrad.attr.llm._segments import Unit, checked_spans, segments

_FORMAT = 1
_FIELDS = (
    "input_tokens",
    "output_tokens",
    "seq_attr",
    "token_attr",
    "output_probs",
    "prompt_text",
    "answer_text",
    "offsets",
    "prompt_seq_attr",
    "prompt_token_attr",
)


class FeatureScore(NamedTuple):
    """One feature of a prompt and its score."""

    feature: str
    score: float
    place: int


class AnswerAttribution(LLMAttributionResult):
    """
    Captum's result for an answer of a language model, with its plots, and with more
    ways to look at it.

    Attributes:
        input_tokens (list of str): the names of the features.
        output_tokens (list of str): the explained tokens of the answer.
        seq_attr (Tensor): ``(features,)``, for all explained tokens together.
        token_attr (Tensor, optional): ``(explained tokens, features)``.
        probabilities (Tensor): of the explained tokens, ``(explained tokens,)``;
            ``output_probs`` in Captum 0.9.
        prompt_text (str): the text of the prompt.
        answer_text (str): the text of the explained tokens.
        offsets (list of (int, int), optional): the characters of the prompt that each
            of its tokens was made from.
        prompt_seq_attr (Tensor): as seq_attr, of the prompt's tokens.
        prompt_token_attr (Tensor, optional): as token_attr, of the prompt's tokens.
    """

    def __init__(
        self,
        *,
        input_tokens: list[str],
        output_tokens: list[str],
        seq_attr: Tensor,
        token_attr: Tensor | None,
        output_probs: Tensor,
        prompt_text: str,
        answer_text: str,
        offsets: list[Span] | None,
        prompt_seq_attr: Tensor,
        prompt_token_attr: Tensor | None,
        inp: Any = None,
    ) -> None:
        super().__init__(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            seq_attr=seq_attr,
            token_attr=token_attr,
        )
        # Captum 0.8 knows neither.
        self.output_probs = self.probabilities = output_probs
        self.inp = inp
        self.prompt_text = prompt_text
        self.answer_text = answer_text
        self.offsets = offsets
        self.prompt_seq_attr = prompt_seq_attr
        self.prompt_token_attr = prompt_token_attr

    def top(self, k: int = 5) -> list[FeatureScore]:
        """
        The features that spoke most for the answer.

        Args:
            k (int, optional): How many.
                Default: 5

        Returns:
            list of (feature, score, place among the features), the highest score first.
        """
        if k < 1:
            raise ValueError(f"k={k}, expected 1 or more.")
        scores = self.seq_attr.tolist()
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
        return [FeatureScore(self.input_tokens[i], scores[i], i) for i in order]

    def aggregate(
        self, by: Unit = "sentence", *, spans: Sequence[Span] | None = None
    ) -> AnswerAttribution:
        """
        The same explanation by other features: the scores of the tokens are summed
        over segments of the prompt.

        Args:
            by (str, optional): ``"word"``, ``"sentence"``, ``"line"`` or
                ``"passage"``.
                Default: "sentence"
            spans (sequence of (int, int), optional): given segments of
                ``prompt_text``, in characters, in place of ``by``.
                Default: None

        Raises:
            ValueError: an unknown ``by``, wrong spans, or a tokenizer that did not say
                which characters its tokens were made from.
        """
        if self.offsets is None:
            raise ValueError(
                "The tokenizer did not say which characters the prompt's tokens were "
                "made from, so their scores cannot be summed over parts of the text. "
                "Use a fast tokenizer, and pass the prompt as a str."
            )
        text = self.prompt_text
        found = segments(text, by) if spans is None else checked_spans(text, spans)
        shares = shares_of_spans(text, self.offsets, [[span] for span in found])
        shares = shares.to(self.prompt_seq_attr)
        rows = self.prompt_token_attr
        return self._with(
            input_tokens=[text[start:end] for start, end in found],
            seq_attr=self.prompt_seq_attr @ shares,
            token_attr=None if rows is None else rows @ shares,
        )

    def span(self, start: int | str, end: int | None = None) -> AnswerAttribution:
        """
        The explanation of a part of the answer.

        Args:
            start (int or str): The first explained token, or the text of the part
                (where it occurs first; the tokens that it touches).
            end (int, optional): The token after the last one; not with a text.
                Default: None, with an int the one token ``start``

        Raises:
            ValueError: tokens that are out of range, a text that the answer does not
                have, or a result without scores for each token.
        """
        if self.token_attr is None or self.prompt_token_attr is None:
            raise ValueError(
                "The result has no scores for each token of the answer "
                "(per_token=False), so no part of it can be told. Explain the answer "
                "with per_token=True."
            )
        count = len(self.output_tokens)
        if isinstance(start, str):
            if end is not None:
                raise ValueError(f"end={end} goes with a token, not with a text.")
            first, last = self._tokens_of(start)
        else:
            first, last = start, start + 1 if end is None else end
        if not 0 <= first < last <= count:
            raise ValueError(
                f"Tokens {first} to {last} are out of range: expected "
                f"0 <= start < end <= {count}."
            )
        rows = self.token_attr[first:last]
        of_prompt = self.prompt_token_attr[first:last]
        return self._with(
            output_tokens=self.output_tokens[first:last],
            answer_text=" ".join(self.output_tokens[first:last]),
            seq_attr=rows.sum(0),
            token_attr=rows,
            output_probs=self.probabilities[first:last],
            prompt_seq_attr=of_prompt.sum(0),
            prompt_token_attr=of_prompt,
        )

    def to_frame(self) -> Any:
        """
        A table (*pandas.DataFrame*) with one row for each feature: its score for the
        whole answer, and for each explained token.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas: pip install 'captum-attngrad[compare]'"
            ) from error
        columns: dict[Any, Any] = {
            "feature": self.input_tokens,
            "score": self.seq_attr.tolist(),
        }
        if self.token_attr is not None:
            for i, token in enumerate(self.output_tokens):
                columns[f"{i} {token}"] = self.token_attr[i].tolist()
        return pandas.DataFrame(columns)

    def to_json(self, path: str | Path | None = None) -> str:
        """
        Everything but the link to the input, as JSON.

        Args:
            path (str or Path, optional): A file to write as well.
                Default: None
        """
        parts = {name: getattr(self, name) for name in _FIELDS}
        text = json.dumps(
            {
                "format": _FORMAT,
                **{
                    name: part.tolist() if isinstance(part, Tensor) else part
                    for name, part in parts.items()
                },
            },
            ensure_ascii=False,
        )
        if path is not None:
            write_file(path, text.encode("utf-8", "surrogatepass"))
        return text

    @classmethod
    def from_json(cls, source: str | Path) -> AnswerAttribution:
        """
        What :meth:`to_json` made, as a text or a file.

        Raises:
            ValueError: if it is something else.
        """
        what, text = "The text", source
        if isinstance(source, Path):
            what, text = f"The file {source}", source.read_text(encoding="utf-8")
        try:
            found = json.loads(str(text))
            if found.pop("format") != _FORMAT:
                raise ValueError("another format")
            for name in _FIELDS:
                if name.endswith(("attr", "probs")) and found[name] is not None:
                    found[name] = torch.tensor(found[name])
            if found["offsets"] is not None:
                found["offsets"] = [tuple(span) for span in found["offsets"]]
            return cls(**found)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{what} is not a result that AnswerAttribution.to_json wrote: {error}."
            ) from error

    # -- parts ------------------------------------------------------------------------

    def _with(self, **changed: Any) -> AnswerAttribution:
        """The same result with other parts."""
        return AnswerAttribution(
            **{**{name: getattr(self, name) for name in _FIELDS}, **changed}
        )

    def _tokens_of(self, text: str) -> tuple[int, int]:
        """The tokens that a part of the answer touches. White space does not count."""
        wanted = "".join(text.split())
        joined, owner = "", []
        for i, token in enumerate(self.output_tokens):
            piece = "".join(token.split())
            joined += piece
            owner += [i] * len(piece)
        place = joined.find(wanted)
        if not wanted or place < 0:
            answer = " ".join(self.output_tokens)
            raise ValueError(f"{text!r:.80} is not in the answer {answer!r:.200}.")
        return owner[place], owner[place + len(wanted) - 1] + 1
