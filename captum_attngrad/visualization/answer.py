"""The page of an explained answer: choose its tokens, and see what they rested on."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from captum_attngrad.visualization.page import render_page, write_page
from captum_attngrad.visualization.words import MIN_PEAK, is_special

if TYPE_CHECKING:
    from captum_attngrad.attr.llm.result import AnswerAttribution

# Whole numbers of 16 bits keep a page of a long prompt small.
_MAX_NUMBER = 32767


class _Piece(NamedTuple):
    """A part of the prompt: a token, or what stands between tokens."""

    text: str
    token: int | None


class _AnswerToken(NamedTuple):
    text: str
    title: str


def answer_page(
    result: AnswerAttribution, title: str = "What the answer rested on"
) -> str:
    r"""
    A page that shows an explained answer of a language model.

    A click (or Enter) on a token of the answer, or a selection of several (with Shift),
    colors the prompt and sorts its features. The page needs no network; what prompt and
    answer say is shown as text.

    Args:
        result (AnswerAttribution): What
            :meth:`captum_attngrad.LLMAttentionGradient.attribute` returned.
        title (str, optional): Title of the page.
            Default: "What the answer rested on"

    Returns:
        *str*: The page.
    """
    of_tokens, of_features = [result.prompt_seq_attr], [result.seq_attr]
    if result.token_attr is not None and result.prompt_token_attr is not None:
        of_tokens += list(result.prompt_token_attr)
        of_features += list(result.token_attr)
    probabilities = result.probabilities.tolist()
    answer = [
        _AnswerToken(token, f"probability {probability:.3f}")
        for token, probability in zip(result.output_tokens, probabilities, strict=True)
    ]
    return render_page(
        "answer.html",
        title,
        answer=answer,
        selectable=result.token_attr is not None,
        features_heading="Features of the prompt",
        prompt=_pieces(result),
        data={
            "names": result.input_tokens,
            "tokens": _numbers(of_tokens),
            "features": _numbers(of_features),
            "least": MIN_PEAK,
            "unit": "summed over the chosen tokens",
        },
    )


def save_answer_html(
    result: AnswerAttribution,
    path: str | os.PathLike[str],
    title: str = "What the answer rested on",
) -> Path:
    r"""
    Writes :func:`answer_page`; missing folders are made.

    Args:
        result (AnswerAttribution): As for :func:`answer_page`.
        path (str or os.PathLike): File to write.
        title (str, optional): Title of the page.
            Default: "What the answer rested on"

    Returns:
        *Path*: The file.

    Raises:
        OSError: If the file cannot be written, or something other than a regular file
            is there.
    """
    return write_page(answer_page(result, title), path)


def _pieces(result: AnswerAttribution) -> list[_Piece]:
    if result.offsets is None:
        tokens = [_Piece(token, i) for i, token in enumerate(result.input_tokens)]
        return [piece for token in tokens for piece in (token, _Piece(" ", None))]
    text, end = result.prompt_text, 0
    pieces: list[_Piece] = []
    for token, (start, stop) in enumerate(result.offsets):
        # Tokens may share a character (an emoji of several tokens), or have none.
        start = max(start, end)
        if start >= stop:
            continue
        if start > end:
            pieces.append(_Piece(text[end:start], None))
        piece = text[start:stop]
        # A start token, which many models attend to whatever it is, has no color.
        pieces.append(_Piece(piece, None if is_special(piece) else token))
        end = stop
    return [*pieces, _Piece(text[end:], None)]


def _numbers(rows: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Rows of scores as 16-bit whole numbers with a factor each."""
    found = []
    for row in rows:
        row = row.detach().double().cpu()
        row = row.where(row.isfinite(), 0)
        peak = float(row.abs().max()) if row.numel() else 0.0
        factor = peak / _MAX_NUMBER
        numbers = (row / factor).round() if factor else torch.zeros_like(row)
        content = numbers.to(torch.int16).numpy().astype("<i2").tobytes()
        values = base64.b64encode(content).decode("ascii")
        found.append({"factor": factor, "values": values})
    return found
