r"""The texts that ``--data`` names."""

import csv
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.models import MIN_ABS_RATING
from captum_attngrad.datasets import MovieReviewSnippets

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
    Reads texts, and draws ``limit`` of them at random.

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
        found = _from_file(
            Path(data).expanduser(), text_column, label_column, class_names
        )
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


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            yield reader.line_num, row


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(
                    f"line {number} is not an object: {line.strip()!r:.60}"
                )
            yield number, row


def _label(value: Any, class_names: Sequence[str]) -> int:
    text = str(value).strip()
    if text.isdecimal() and int(text) < len(class_names):
        return int(text)
    lowered = [name.lower() for name in class_names]
    if text.lower() in lowered:
        return lowered.index(text.lower())
    raise ValueError(
        f"the label {value!r} is no class; expected 0 to {len(class_names) - 1} or one "
        f"of: {', '.join(class_names)}"
    )


def _from_file(
    path: Path, text_column: str, label_column: str | None, class_names: Sequence[str]
) -> Texts:
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise UsageError(
            f"argument --data: {str(path)!r} is neither movie-reviews nor a .csv or "
            ".jsonl file"
        )
    texts: list[str] = []
    labels: list[int] = []
    try:
        for number, row in readers[path.suffix.lower()](path):
            if text_column not in row:
                names = ", ".join(str(name) for name in row)
                raise UsageError(
                    f"argument --text-column: line {number} of {str(path)!r} has no "
                    f"{text_column!r}; it has: {names}"
                )
            text = row[text_column]
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"line {number} has no text")
            texts.append(text)
            column = "label" if label_column is None else label_column
            if column in row:
                try:
                    labels.append(_label(row[column], class_names))
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error
            elif label_column is not None:
                raise UsageError(
                    f"argument --label-column: line {number} of {str(path)!r} has no "
                    f"{label_column!r}; it has: {', '.join(str(name) for name in row)}"
                )
    except OSError as error:
        raise UsageError(
            f"argument --data: cannot read {str(path)!r}: {error.strerror}"
        ) from error
    except (ValueError, csv.Error) as error:
        raise UsageError(f"argument --data: {str(path)!r}: {error}") from error
    if not texts:
        raise UsageError(f"argument --data: {str(path)!r} holds no texts")
    if labels and len(labels) < len(texts):
        raise UsageError(
            f"argument --data: {str(path)!r} has labels for {len(labels)} of its "
            f"{len(texts)} texts; expected all or none"
        )
    return Texts(texts, labels or None, f"{path.name}")
