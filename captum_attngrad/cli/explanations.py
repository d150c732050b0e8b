r"""Explained texts as ``explain`` shows them: on a terminal, as a page, as data."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from captum_attngrad.text import merge_word_pieces
from captum_attngrad.visualization import words as pages
from captum_attngrad.visualization.page import texts_page
from captum_attngrad.visualization.words import Row

_GREEN, _RED, _BOLD, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m"
# One sign, two, three: at these shares of the strongest score.
_EDGES = (0.1, 1 / 3, 2 / 3)


@dataclass(frozen=True)
class Explanation:
    r"""
    A text with its explanations.

    Args:
        text (str): The text.
        predicted (str): What the model predicts, with probabilities: a class, or any
            number of labels.
        explained (str): The explained class.
        probability (float): Its probability.
        words (list of str): The words.
        scores (dict): Name of the method to the scores of the words, (words,).
        failures (dict): Name of the method to the reason for which it has none.
    """

    text: str
    predicted: str
    explained: str
    probability: float
    words: list[str]
    scores: dict[str, Tensor] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """A row for each method, named after it."""
        return [
            pages.row_of(name, self.words, scores, merge_pieces=False)
            for name, scores in self.scores.items()
        ]


def words_of(
    tokens: Sequence[str], scores: dict[str, Tensor], word_pieces: bool
) -> tuple[list[str], dict[str, Tensor]]:
    """Words of a text and their scores by each method, or its word pieces."""
    words = list(tokens)
    found = {name: s[: len(tokens)].double().cpu() for name, s in scores.items()}
    if not word_pieces:
        for name, of_pieces in found.items():
            words, found[name] = merge_word_pieces(tokens, of_pieces)
    return words, found


def terminal_lines(found: Explanation, width: int, color: bool) -> Iterator[str]:
    """What the terminal shows of a text; names of methods have ``width``."""
    yield f"Predicted {found.predicted}."
    yield (
        f"Explained: {found.explained} ({found.probability:.2f}). "
        "+ for it, - against it."
    )
    for row in found.rows():
        said = [row.note] if row.note else []
        yield f"{row.label.ljust(width)}  {' '.join([*said, marked(row, color)])}"
    for name, why in found.failures.items():
        yield f"{name.ljust(width)}  failed: {why}"


def marked(row: Row, color: bool) -> str:
    """Words with one to three signs for the strength of their scores."""
    shown = []
    for word in row.words:
        n_signs = sum(abs(word.strength) >= edge for edge in _EDGES)
        text = ("+" if word.strength > 0 else "-") * n_signs + word.text
        if color and n_signs:
            bold = _BOLD if n_signs == 3 else ""
            text = f"{_GREEN if word.strength > 0 else _RED}{bold}{text}{_OFF}"
        shown.append(text)
    return " ".join(shown)


def as_page(found: Sequence[Explanation]) -> str:
    """A page with a row for each method below each text."""
    texts = []
    for number, one in enumerate(found, start=1):
        place = f"{number}. " if len(found) > 1 else ""
        about = (
            f"{place}Predicted {one.predicted}. Explained: {one.explained} "
            f"({one.probability:.2f})"
        )
        failed = [Row(name, [], f"failed: {why}") for name, why in one.failures.items()]
        texts.append(pages.ExplainedText(about, [*one.rows(), *failed]))
    return texts_page(texts, "Explained texts" if len(found) > 1 else "Explained text")


def as_json(found: Sequence[Explanation]) -> str:
    """A list with an object for each text."""
    entries: list[dict[str, Any]] = [
        {
            "text": one.text,
            "predicted": one.predicted,
            "explained": one.explained,
            "probability": one.probability,
            "words": one.words,
            "scores": {name: scores.tolist() for name, scores in one.scores.items()},
            "failures": one.failures,
        }
        for one in found
    ]
    return json.dumps(entries, ensure_ascii=False, indent=2) + "\n"


def as_csv(found: Sequence[Explanation]) -> str:
    """A line for each word of each method; texts and words count from 0."""
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(("text", "explained", "method", "position", "word", "score"))
    for number, one in enumerate(found):
        for name, scores in one.scores.items():
            for position, (word, score) in enumerate(
                zip(one.words, scores.tolist(), strict=True)
            ):
                table.writerow((number, one.explained, name, position, word, score))
    return written.getvalue()


WRITERS = {"html": as_page, "json": as_json, "csv": as_csv}
