"""The splits of the movie reviews that a classifier is trained and tested on."""

from __future__ import annotations

from captum_attngrad._cache import PathLike
from captum_attngrad.datasets import MovieReview, MovieReviewSnippets


def review_splits(
    data_root: PathLike | None, download: bool, min_abs_rating: float
) -> dict[str, list[MovieReview]]:
    """Return each split's reviews; an empty split is an error."""
    splits = {}
    for split in ("train", "validation", "test"):
        splits[split] = list(
            MovieReviewSnippets(
                data_root, split, download=download, min_abs_rating=min_abs_rating
            )
        )
        if not splits[split]:
            raise ValueError(
                f"min_abs_rating={min_abs_rating} leaves no sentences in the {split} "
                "split. Ratings go from -4 to 4; choose a smaller value."
            )
    return splits
