"""What the trainings of small models share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from captum._utils.progress import NullProgress, progress

if TYPE_CHECKING:
    from captum._utils.progress import Progress  # not there before captum 0.9

# Batches are cut from pools of this many batches sorted by length: little padding, and
# still another mixture in every epoch.
_POOL = 20


def length_sorted_batches(
    encoded: Sequence[Sequence[int]], batch_size: int
) -> Iterator[list[int]]:
    """Yield the rows of an epoch's batches, in random order, like lengths together."""
    order = torch.randperm(len(encoded)).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), _POOL * batch_size):
        pool = order[start : start + _POOL * batch_size]
        pool.sort(key=lambda row: len(encoded[row]))
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    for index in torch.randperm(len(batches)).tolist():
        yield batches[index]


def training_bar(total: int, desc: str, show_progress: bool) -> Progress:
    """Return a progress bar of ``total`` steps."""
    if not show_progress:
        return NullProgress[None]()
    return progress(total=total, desc=desc)
