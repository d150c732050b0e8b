"""A file in the format of the movie reviews, filled with sentences of our own."""

from __future__ import annotations

from collections.abc import Callable

FILE_NAME = "movieReviewSnippets_GroundTruth.txt"
NUM_ROWS = 10_605


def reviews_file(
    rating: Callable[[int], float] = lambda i: (i % 9) - 4.0,
    text: Callable[[int], str] = lambda i: f"sentence {i}",
) -> bytes:
    rows = (f"{i}\t{rating(i)}\t{text(i)}" for i in range(1, NUM_ROWS + 1))
    return "\r\n".join(rows).encode("utf-8")
