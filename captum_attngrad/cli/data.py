r"""The texts that ``--data`` names."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captum_attngrad.cli.arguments import user_path
from captum_attngrad.cli.classes import class_index
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.files import read_text, rows_of
from captum_attngrad.cli.models import MIN_ABS_RATING
from captum_attngrad.datasets import MovieReviewSnippets
from captum_attngrad.text._texts import lone_surrogate

#: How many movie reviews are taken when no number is given.
DEFAULT_REVIEWS = 100


class Texts(NamedTuple):
    r"""
    Texts with their labels.

    Args:
        texts (list of str): The texts.
        labels (list of int, optional): Their classes; None if there are none.
        description (str): Where they are from, for the report.
    """

    texts: list[str]
    labels: list[int] | None
    description: str


def load_texts(
    data: str,
    text_column: str,
    label_column: str | None,
    class_names: Sequence[str],
    limit: int | None,
    seed: int,
) -> Texts:
    r"""
    Reads texts and draws ``limit`` of them at random.

    Args:
        data (str): "movie-reviews", or the path of a .csv or .jsonl file.
        text_column (str): Column, or key, of the text.
        label_column (str, optional): That of the label; None takes "label" if there is
            one.
        class_names (Sequence of str): What labels may say besides 0, 1, ...
        limit (int, optional): How many are drawn; None for all of a file, 100 reviews.
        seed (int): Seed of the draw.

    Returns:
        *Texts*

    Raises:
        UsageError: If the file cannot be read as such, with its line.
        RuntimeError: If the kept reviews are damaged, or cannot be had.
    """
    if data == "movie-reviews":
        found = _reviews()
        limit = DEFAULT_REVIEWS if limit is None else limit
    else:
        path = user_path("--data", data)
        if path.suffix.lower() not in (".csv", ".jsonl"):
            raise UsageError(
                f"argument --data: {data!r} is neither movie-reviews nor a .csv or "
                ".jsonl file"
            )
        found = _from_file(path, text_column, label_column, class_names)
    n = len(found.texts)
    if limit is None or limit == n:
        return found
    if limit > n:
        held_out = "held-out sentences" if data == "movie-reviews" else "texts"
        raise UsageError(
            f"argument --limit: {limit} is more than the {n} {held_out} there are"
        )
    chosen = random.Random(seed).sample(range(n), limit)
    labels = found.labels
    return Texts(
        [found.texts[place] for place in chosen],
        None if labels is None else [labels[place] for place in chosen],
        f"{found.description}, {limit} of {n} drawn at random",
    )


def _reviews() -> Texts:
    try:
        reviews = MovieReviewSnippets(split="test", min_abs_rating=MIN_ABS_RATING)
    except ValueError as error:  # the kept file is damaged; the message says which
        raise RuntimeError(str(error)) from error
    return Texts(
        [review.text for review in reviews],
        [review.label for review in reviews],
        "held-out sentences of MovieReviewSnippets (Hutto and Gilbert, 2014) with a "
        f"mean rating of at least {MIN_ABS_RATING:g} away from 0",
    )


def _from_file(
    path: Path, text_column: str, label_column: str | None, class_names: Sequence[str]
) -> Texts:
    texts: list[str] = []
    labels: list[int] = []
    try:
        for number, row in rows_of(path, "--data"):
            texts.append(_text_in(path, number, row, text_column))
            if label_column is not None or "label" in row:
                column = _column(
                    path, number, row, "--label-column", label_column or "label"
                )
                try:
                    labels.append(class_index(row[column], class_names))
                except ValueError as error:
                    raise ValueError(f"line {number}: the label {error}") from error
    except ValueError as error:
        raise UsageError(f"argument --data: {str(path)!r}: {error}") from error
    if not texts:
        raise UsageError(f"argument --data: {str(path)!r} holds no texts")
    if labels and len(labels) < len(texts):
        raise UsageError(
            f"argument --data: {str(path)!r} has labels for {len(labels)} of its "
            f"{len(texts)} texts; expected all or none"
        )
    return Texts(texts, labels or None, f"{path.name}")


def texts_in(path: Path, text_column: str) -> list[str]:
    r"""
    The texts of a file: a column of a .csv or .jsonl file, or each line of a .txt file.

    Args:
        path (Path): The file.
        text_column (str): Column, or key, of the text.

    Returns:
        *list of str*: Empty lines are left out.

    Raises:
        UsageError: If the file cannot be read as such, or holds no texts.
    """
    ending = path.suffix.lower()
    if ending not in ("", ".txt", ".csv", ".jsonl"):
        raise UsageError(
            f"argument --file: {str(path)!r} is not a .txt, .csv or .jsonl file"
        )
    try:
        if ending in (".csv", ".jsonl"):
            rows = rows_of(path, "--file")
            found = [_text_in(path, n, row, text_column) for n, row in rows]
        else:
            found = lines_of(read_text(path, "--file"))
    except ValueError as error:
        raise UsageError(f"argument --file: {str(path)!r}: {error}") from error
    if not found:
        raise UsageError(f"argument --file: {str(path)!r} holds no texts")
    return found


def lines_of(text: str) -> list[str]:
    """The lines that are not empty."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def _text_in(path: Path, number: int, row: dict[str, Any], column: str) -> str:
    return _text(number, row[_column(path, number, row, "--text-column", column)])


def _column(
    path: Path, number: int, row: dict[str, Any], argument: str, column: str
) -> str:
    if column in row:
        return column
    raise UsageError(
        f"argument {argument}: line {number} of {str(path)!r} has no {column!r}; it "
        f"has: {', '.join(row) or 'nothing'}"
    )


def _text(number: int, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        found = "" if isinstance(value, str) else f" but {value!r:.60}"
        raise ValueError(f"line {number} has no text{found}")
    half = lone_surrogate(value)
    if half is not None:
        raise ValueError(
            f"line {number} holds {half}, half of a surrogate pair, which is not a "
            "character"
        )
    return value
