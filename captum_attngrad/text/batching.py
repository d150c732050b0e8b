"""From lists of ids of different lengths to one tensor and its mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pad_batch(
    sequences: Sequence[Sequence[int]], padding_value: int
) -> tuple[Tensor, Tensor]:
    r"""
    Put sequences of ids into one tensor, filled up on the right.

    Args:

        sequences (Sequence[Sequence[int]]): One list of ids for each text. A list may
                    be empty; its row of the mask is then False throughout.
        padding_value (int): The id to fill up with, for example ``vocab["<pad>"]``.

    Returns:
        **ids**, **mask** (Tensor, Tensor):
        - **ids**: int64, of shape (batch, length of the longest sequence).
        - **mask**: bool, of the same shape; True where ``ids`` holds an id of the
          sequence, False where it holds padding. It does not depend on the value of
          the ids: an id equal to ``padding_value`` inside a sequence counts.

    Raises:

        ValueError: If ``sequences`` is empty.

    Examples::

        >>> ids, mask = pad_batch([[5, 6, 7], [8]], padding_value=0)
        >>> ids
        tensor([[5, 6, 7],
                [8, 0, 0]])
        >>> mask
        tensor([[ True,  True,  True],
                [ True, False, False]])
    """
    if len(sequences) == 0:
        raise ValueError("pad_batch needs at least one sequence of ids, got none.")
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    longest = int(lengths.max())
    ids = torch.full((len(sequences), longest), padding_value, dtype=torch.long)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = torch.as_tensor(sequence, dtype=torch.long)
    return ids, torch.arange(longest) < lengths.unsqueeze(1)
