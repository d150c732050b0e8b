"""A prompt as token ids, and which of them make up its interpretable features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from captum.attr import InterpretableInput, TextTemplateInput, TextTokenInput
from torch import Tensor

from captum_attngrad._captum import TokenizerLike

Span = tuple[int, int]  # characters, from the first to past the last

# Private-use characters, one for each value, show where a template puts the values.
_FIRST_MARK = 0xF0000


@dataclass(frozen=True)
class Prompt:
    """A prompt, ready for the model.

    Args:
        inp (InterpretableInput): what the user asked about.
        ids (Tensor): token ids, ``(1, tokens)``.
        shares (Tensor, optional): of a template, ``(tokens, features)``: which share of
            a token's score goes to a feature.
    """

    inp: TextTokenInput | TextTemplateInput
    ids: Tensor
    shares: Tensor | None = None

    @property
    def features(self) -> list[str]:
        """The names of the features."""
        return list(self.inp.values)

    def of_features(self, scores: Tensor) -> Tensor:
        """``(rows, tokens)`` to ``(rows, features)``."""
        if isinstance(self.inp, TextTokenInput):
            mask = self.inp.itp_mask
            return scores if mask is None else scores[:, mask[0].to(scores.device)]
        assert self.shares is not None
        return self.inp.format_attr(scores @ self.shares.to(scores))


def read_prompt(inp: str | InterpretableInput, tokenizer: TokenizerLike) -> Prompt:
    """The prompt, in every form that is supported.

    Raises:
        TypeError: if it has another type.
        ValueError: if it is empty, or its features cannot be found in its text.
    """
    if isinstance(inp, str):
        inp = TextTokenInput(inp, tokenizer)
    if isinstance(inp, TextTokenInput):
        prompt = Prompt(inp, inp.to_model_input())
    elif isinstance(inp, TextTemplateInput):
        prompt = _from_template(inp, tokenizer)
    else:
        raise TypeError(
            f"inp is {type(inp).__name__}, expected the prompt as a str, or Captum's "
            "TextTokenInput or TextTemplateInput."
        )
    if not prompt.ids.numel():
        raise ValueError(
            "The prompt has no tokens, so nothing precedes the first token of the "
            "answer. Pass some text. (A tokenizer that adds a start token gives an "
            "empty text one token.)"
        )
    return prompt


def _from_template(inp: TextTemplateInput, tokenizer: TokenizerLike) -> Prompt:
    text = inp.to_model_input()
    spans = _spans_of_values(inp, text)
    ids = tokenizer.encode(text, return_tensors="pt")
    offsets = _offsets(text, ids[0].tolist(), tokenizer)
    groups = list(range(len(spans))) if inp.mask is None else inp.formatted_mask
    shares = torch.zeros(len(offsets), inp.n_itp_features, dtype=torch.float64)
    for i, (start, end) in enumerate(offsets):
        # The space that many tokens begin with belongs to no value.
        inked = [c for c in range(start, end) if not text[c].isspace()]
        for c in inked or range(start, end):
            for group, own in zip(groups, spans, strict=True):
                shares[i, group] += any(a <= c < b for a, b in own)
    total = shares.sum(dim=1, keepdim=True)
    return Prompt(inp, ids, shares / total.masked_fill(total == 0, 1))


def _spans_of_values(inp: TextTemplateInput, text: str) -> list[list[Span]]:
    """Where each value occurs in the text, perhaps more than once."""
    marks = [chr(_FIRST_MARK + i) for i in range(len(inp.values))]
    if inp.dict_keys:
        marked = inp.format_fn(**dict(zip(inp.dict_keys, marks, strict=True)))
    else:
        marked = inp.format_fn(*marks)
    values = dict(zip(marks, inp.values, strict=True))
    spans: dict[str, list[Span]] = {mark: [] for mark in marks}
    filled = ""
    for character in marked:
        piece = values.get(character, character)
        if character in values:
            spans[character].append((len(filled), len(filled) + len(piece)))
        filled += piece
    if filled != text:
        raise ValueError(
            "The template changes its values (a format specification, or a function "
            "that does more than insert them), so they cannot be found again in the "
            f"text {text!r:.200}. Use a template that inserts its values as they are."
        )
    return list(spans.values())


def _offsets(text: str, ids: list[int], tokenizer: TokenizerLike) -> list[Span]:
    """The characters that each token was made from."""
    name = type(tokenizer).__name__
    try:
        encoded = tokenizer(text, return_offsets_mapping=True)
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"{name} does not say which characters its tokens were made from "
            "(return_offsets_mapping=True), so the values of a TextTemplateInput "
            "cannot be found among them. Use a fast tokenizer, or a TextTokenInput."
        ) from error
    if cast("list[int]", encoded["input_ids"]) != ids:
        raise ValueError(
            f"{name}.encode(text) and {name}(text) give different tokens for "
            f"{text!r:.200}, so offsets of the one do not fit the other."
        )
    return cast("list[Span]", encoded["offset_mapping"])
