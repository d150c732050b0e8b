"""Fixed splits of a data set: each entry belongs to one, chosen by its name alone."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "validation", "test", "all")


def check_split(split: str) -> None:
    """Raise a ValueError if there is no such split."""
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}. Choose one of {', '.join(SPLITS)}.")


def in_split(split: str, name: str) -> bool:
    """Whether the entry of this name is in the split: of the last decimal digit of its
    SHA-256, 0 means test, 1 validation and 2 to 9 train."""
    digest = hashlib.sha256(name.encode()).digest()
    digit = int.from_bytes(digest, "big") % 10
    return split in ("all", {0: "test", 1: "validation"}.get(digit, "train"))
