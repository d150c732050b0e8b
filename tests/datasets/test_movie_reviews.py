from __future__ import annotations

from pathlib import Path

import pytest

from captum_attngrad.datasets import MovieReview, MovieReviewSnippets
from tests.datasets.made_up import FILE_NAME, NUM_ROWS, reviews_file


def _write(root: Path, content: bytes) -> Path:
    root.mkdir(exist_ok=True)
    (root / FILE_NAME).write_bytes(content)
    return root


def _by_id(root: Path, min_abs_rating: float = 0.0) -> dict[int, MovieReview]:
    data = MovieReviewSnippets(
        root, "all", download=False, min_abs_rating=min_abs_rating
    )
    return {review.id: review for review in data}


# The real file -------------------------------------------------------------------


@pytest.mark.network
def test_the_real_data(reviews_root: Path) -> None:
    data = MovieReviewSnippets(reviews_root, "all", download=False)
    assert len(data) == len(list(data)) == NUM_ROWS
    assert [review.id for review in data] == list(range(1, NUM_ROWS + 1))
    ratings = [review.rating for review in data]
    assert (min(ratings), max(ratings)) == (-3.875, 3.94117647059)
    assert all(review.label == int(review.rating > 0) for review in data)
    assert sum(review.label for review in data) == 5_242
    assert ratings.count(0.0) == 37
    clear = MovieReviewSnippets(reviews_root, "all", min_abs_rating=1.0)
    assert len(clear) == 9_173
    assert sum(review.label for review in clear) == 4_598
    assert min(abs(review.rating) for review in clear) == 1.0


@pytest.mark.network
def test_the_real_text_is_decoded_rightly(reviews_root: Path) -> None:
    reviews = _by_id(reviews_root)
    texts = [review.text for review in reviews.values()]
    assert "clichés" in reviews[93].text
    assert reviews[10423].text == "Touché!"
    # Everything beyond ASCII that a reader of English reviews expects, and no sign of
    # a wrong encoding (such as "Ã©") or of HTML.
    beyond = {char for text in texts for char in text if not 32 <= ord(char) < 127}
    assert beyond == set("–’½àáâãæçèéíïñóôöûü")
    assert not any("&amp;" in text for text in texts)
    assert sum(text.count("&") for text in texts) == 22
    assert all(text == text.strip() and text for text in texts)


@pytest.mark.network
def test_the_real_splits(reviews_root: Path) -> None:
    splits = {
        split: list(MovieReviewSnippets(reviews_root, split, min_abs_rating=1.0))
        for split in ("train", "validation", "test")
    }
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 7_335,
        "validation": 962,
        "test": 876,
    }
    for rows in splits.values():
        assert 0.48 < sum(review.label for review in rows) / len(rows) < 0.52
    # No sentence is both learnt and tested, not even under two ids.
    words = {
        split: {"".join(filter(str.isalnum, r.text)).lower() for r in rows}
        for split, rows in splits.items()
    }
    assert not words["train"] & words["validation"]
    assert not words["train"] & words["test"]
    assert not words["validation"] & words["test"]


# Files of our own ----------------------------------------------------------------


def test_records_and_labels(tmp_path: Path) -> None:
    def rating(i: int) -> float:
        return {1: 0.0, 2: 0.05, 3: -0.05, 4: 4.0, 5: -4.0}.get(i, 1.0)

    root = _write(tmp_path, reviews_file(rating, lambda i: f"é &amp; {i}"))
    reviews = _by_id(root)
    assert reviews[2] == MovieReview(id=2, text="é & 2", rating=0.05, label=1)
    assert [reviews[i].label for i in (1, 2, 3, 4, 5)] == [0, 1, 0, 1, 0]
    assert type(reviews[2].label) is int
    assert set(range(1, 6)) - set(_by_id(root, min_abs_rating=1.0)) == {1, 2, 3}
    assert set(_by_id(root, min_abs_rating=4.0)) == {4, 5}


def test_splits_are_a_fixed_partition(tmp_path: Path) -> None:
    root = _write(tmp_path, reviews_file())
    ids = {
        split: [review.id for review in MovieReviewSnippets(root, split)]
        for split in ("train", "validation", "test", "all")
    }
    parts = ids["train"] + ids["validation"] + ids["test"]
    assert sorted(parts) == ids["all"] == list(range(1, NUM_ROWS + 1))
    # Written down here, so that no change of the code moves a sentence unseen.
    assert ids["test"][:8] == [4, 18, 22, 25, 27, 42, 104, 118]
    assert ids["validation"][:8] == [5, 11, 12, 26, 30, 33, 44, 46]
    assert len(MovieReviewSnippets(root)) == len(ids["train"]) == 8_484


def test_it_is_a_sequence(tmp_path: Path) -> None:
    data = MovieReviewSnippets(_write(tmp_path, reviews_file()), "test")
    assert data[0].id == 4
    assert data[-1] == list(data)[-1]
    with pytest.raises(IndexError):
        data[len(data)]
    assert repr(data) == (
        "MovieReviewSnippets(split='test', min_abs_rating=0.0): 1009 sentences"
    )


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_what_an_editor_may_change_is_accepted(
    tmp_path: Path, bom: bytes, ending: bytes
) -> None:
    content = reviews_file(text=lambda i: f"a\x85b\u2028c {i}").replace(b"\r\n", b"\n")
    reviews = _by_id(_write(tmp_path, bom + content + ending))
    assert reviews[NUM_ROWS].text == f"a\x85b\u2028c {NUM_ROWS}"


def _broken() -> list[tuple[str, bytes, str]]:
    good = reviews_file()
    return [
        ("a row too few", good.rsplit(b"\r\n", 1)[0], "has 10604 rows, expected 10605"),
        ("a row too many", good + b"\r\n0\t1.0\tx", "has 10606 rows, expected 10605"),
        ("empty", b"", "Line 1 .* is not an id, a rating and a text"),
        ("no tabs", good.replace(b"\t", b" "), "Line 1 .*'1 -3.0 sentence 1'"),
        ("no number", good.replace(b"2\t-2.0", b"2\ttwo"), r"Line 2 .*two\\tsentence"),
        ("rating", good.replace(b"2\t-2.0", b"2\t5.0"), "Line 2 .* rating 5.0"),
        ("nan", good.replace(b"2\t-2.0", b"2\tnan"), "Line 2 .* rating nan"),
        ("twice", good.replace(b"\n2\t", b"\n3\t"), "holds an id twice"),
        ("latin-1", good.replace(b"sentence 1\r", b"\xe9 1\r"), "is not UTF-8"),
        ("cut", good[: len(good) // 2], "rows, expected 10605"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [pytest.param(c, m, id=name) for name, c, m in _broken()],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    root = _write(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        MovieReviewSnippets(root)
    assert str(root / FILE_NAME) in str(caught.value)
    assert "Delete this file" in str(caught.value)
    assert (root / FILE_NAME).read_bytes() == content


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'dev'.*train, validation, test, all"):
        MovieReviewSnippets(tmp_path, "dev")
