"""Words with their scores, as pages and terminals show them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from torch import Tensor, from_numpy

from captum_attngrad._scores import check_finite, checked_scores, checked_tokens
from captum_attngrad.text.word_pieces import merge_word_pieces
from captum_attngrad.visualization._signs import signed_number

#: If the strongest score of a text is below this, the scores have vanished: the
#: rounding error of a probability near 1 in single precision is as large.
MIN_PEAK = 2.0**-24
#: Words whose score is a smaller share of the strongest have no color.
MIN_SHARE = 0.05
# Special tokens that are not a word of the text, as unknown words and masks are.
_SPECIAL = re.compile(
    r"\[(CLS|SEP|PAD|BOS|EOS)\]|</?s>|<(pad|bos|eos|cls|sep)>|<\|.+\|>"
)


class Word(NamedTuple):
    """A word as it is shown.

    ``kind`` is "for", "against", "special" or "" (too weak for a color); ``strength``
    its share of the strongest score in the text, from -1 to 1.
    """

    text: str
    kind: str
    strength: float
    score: str


class Row(NamedTuple):
    """A text as one method explains it; ``note`` says why it has no colors."""

    label: str
    words: list[Word]
    note: str


class ExplainedText(NamedTuple):
    """A text with a row for each method."""

    heading: str
    rows: list[Row]


def heading(
    predicted: object, probability: float, label: object | None = None, note: str = ""
) -> str:
    """What stands above a text; ``label`` is its true class."""
    said = f"Predicted {predicted} ({probability:.2f})"
    if label is not None:
        said += ", as labeled" if label == predicted else f", labeled {label}"
    return said + note


def row_of(
    label: str, tokens: Sequence[str], scores: Any, merge_pieces: bool = True
) -> Row:
    """The words of a text, merged from its word pieces, with their scores."""
    found = checked_scores(scores, "(tokens,)")
    pieces = checked_tokens("tokens", tokens, len(found))
    check_finite(found[: len(pieces)], ("token", pieces))
    words, sums = pieces, from_numpy(found[: len(pieces)])
    if merge_pieces:
        words, sums = merge_word_pieces(pieces, sums)
    strengths, note = relative_strengths(words, sums)
    peak = float(sums.abs().max())
    return Row(
        label,
        [
            Word(word, _kind(word, strength), strength, signed_number(score, peak))
            for word, strength, score in zip(
                words, strengths.tolist(), sums.tolist(), strict=True
            )
        ],
        note,
    )


def _kind(word: str, strength: float) -> str:
    if _is_special(word, None):
        return "special"
    if abs(strength) < MIN_SHARE:
        return ""
    return "for" if strength > 0 else "against"


def _is_special(token: str, special_tokens: Collection[str] | None) -> bool:
    if special_tokens is not None:
        return token in special_tokens
    return _SPECIAL.fullmatch(token) is not None


def relative_strengths(
    words: Sequence[str],
    scores: Tensor,
    special_tokens: Collection[str] | None = None,
) -> tuple[Tensor, str]:
    r"""
    Scores as shares of the strongest, from -1 to 1, for colors.

    Special tokens such as ``[CLS]`` and padding get 0 and do not count as the
    strongest. All get 0 if the scores have vanished: then the strongest is below
    2**-24 (6e-08), the rounding error of a probability in single precision, and a row
    in full color would show noise.

    Args:
        words (Sequence of str): The words.
        scores (Tensor): Their scores, (words,).
        special_tokens (Collection of str, optional): The special tokens.
            Default: None, the usual marks of starts, ends and padding

    Returns:
        *tuple* of **strengths** (*Tensor*, (words,)) and **note** (*str*), which says
        why there are no colors, or is empty.
    """
    special = [_is_special(word, special_tokens) for word in words]
    strengths = scores.clone()
    strengths[special] = 0
    peak = float(strengths.abs().max()) if len(words) else 0.0
    if peak == 0:
        return strengths, "all scores are 0:" if len(words) else ""
    if peak < MIN_PEAK:
        return strengths * 0, (
            f"scores have vanished: the strongest is {peak:.0e}, below the rounding "
            "error of a probability (explain the log-odds instead):"
        )
    return strengths / peak, ""
