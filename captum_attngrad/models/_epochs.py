"""Batches of an epoch, as all trainings here draw them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

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
