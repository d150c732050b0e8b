"""Where the words, sentences, lines and passages of a text begin and end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

Span = tuple[int, int]  # characters, from the first to past the last
Unit = Literal["word", "sentence", "line", "passage"]

# A sentence ends with . ! or ? (and closing quotes or brackets) before white space,
# with an ideographic full stop, or at a line break; but not before a small letter, nor
# after an initial or one of these abbreviations.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[”’」』）]*")
_ABBREVIATIONS = frozenset(
    "approx cf col dept dr e.g ed eds eq fig figs gen gov i.e jr max min mr mrs ms nos "
    "pp prof rep rev sec sen sr st vol vs".split()
)
_UNITS = {
    "word": re.compile(r"\S+"),
    "line": re.compile(r"\S[^\n]*"),
    "passage": re.compile(r"\S(?:(?!\n[^\S\n]*\n).)*", re.DOTALL),
}


def segments(text: str, by: Unit) -> list[Span]:
    """The segments of a text, without the white space around them.

    Raises:
        ValueError: an unknown unit.
    """
    if by not in get_args(Unit):
        known = ", ".join(repr(unit) for unit in get_args(Unit))
        raise ValueError(f"by={by!r} is unknown. Pass one of {known}.")
    if by == "sentence":
        return [span for block in _blocks(text) for span in _sentences(text, *block)]
    return [trimmed(text, match.span()) for match in _UNITS[by].finditer(text)]


def _blocks(text: str) -> list[Span]:
    """Lines, with those that only go on with a sentence joined to the previous one."""
    blocks: list[Span] = []
    for start, end in segments(text, "line"):
        wrapped = bool(blocks) and text[start].islower()
        if wrapped and text.count("\n", blocks[-1][1], start) == 1:
            blocks[-1] = (blocks[-1][0], end)
        else:
            blocks.append((start, end))
    return blocks


def _sentences(text: str, start: int, end: int) -> list[Span]:
    found = []
    first = start
    for match in _END.finditer(text, start, end):
        goes_on = text[match.end() : end].lstrip()[:1].islower()
        before = text[first : match.start()]
        if not goes_on and not _is_abbreviation(before, match.group()):
            found.append(trimmed(text, (first, match.end())))
            first = match.end()
    if text[first:end].strip():
        found.append(trimmed(text, (first, end)))
    return found


def _is_abbreviation(before: str, mark: str) -> bool:
    if mark != ".":
        return False
    words = re.findall(r"[^\s(\[\"“]+$", before)
    word = words[0] if words else ""
    return word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isupper())


def trimmed(text: str, span: Span) -> Span:
    """A span without the white space at its ends."""
    piece = text[slice(*span)]
    start = span[0] + len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())


def checked_spans(text: str, spans: Sequence[Span]) -> list[Span]:
    """Spans that follow each other in a text.

    Raises:
        ValueError: a span that is empty, out of the text, or overlaps the previous one.
    """
    end = 0
    for i, span in enumerate(spans):
        if not end <= span[0] < span[1] <= len(text):
            raise ValueError(
                f"spans[{i}] is {tuple(span)}, expected (start, end) in characters, "
                f"with {end} <= start < end <= {len(text)}: spans follow each other, "
                f"and the text has {len(text)} characters."
            )
        end = span[1]
    return [(int(a), int(b)) for a, b in spans]
