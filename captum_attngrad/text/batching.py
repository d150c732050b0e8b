"""Padding lists of ids into one tensor, and batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def pad_values(
    name: str, values: Sequence[Any], lengths: Sequence[int], padding_value: int
) -> tuple[Tensor, bool]:
    r"""
    Put what a tokenizer returns beside the ids of several texts into one tensor.

    Args:

        name (str): What it is, for messages.
        values (Sequence): For each text a number or a vector for each of its tokens;
                    or numbers of one shape, whatever the number of tokens.
        lengths (Sequence[int]): The number of tokens of each text.
        padding_value (int): The value at padding.

    Returns:
        **values**, **of_tokens** (Tensor, bool):
        - **values**: of shape (batch, most tokens, ...), filled up on the right; or
          (batch, ...).
        - **of_tokens**: whether it is the first.

    Raises:

        ValueError: If the values are neither.
    """
    rows = [torch.as_tensor(value) for value in values]
    of_tokens = all(
        row.dim() > 0 and row.shape[0] == length
        for row, length in zip(rows, lengths, strict=True)
    )
    if of_tokens and len({row.shape[1:] for row in rows}) == 1:
        shape = (len(rows), max(lengths), *rows[0].shape[1:])
        padded = torch.full(shape, padding_value, dtype=rows[0].dtype)
        for filled, row in zip(padded, rows, strict=True):
            filled[: len(row)] = row
        return padded, True
    if len({row.shape for row in rows}) == 1:
        return torch.stack(rows), False
    shapes = ", ".join(str(tuple(row.shape)) for row in rows[:3])
    raise ValueError(
        f"{name} has the shapes {shapes} for texts of "
        f"{', '.join(map(str, lengths[:3]))} tokens; expected one number or vector for "
        "each token, or one shape for all texts."
    )


def by_length(
    lengths: Sequence[int], tokens_per_batch: int, same_length: bool = False
) -> list[list[int]]:
    r"""
    Put texts of similar length into batches of a bounded size.

    Args:

        lengths (Sequence[int]): The number of tokens of each text.
        tokens_per_batch (int): The most tokens in a batch, padding counted: texts times
                    the length of the longest. A longer text is a batch of its own.
        same_length (bool, optional): Whether all texts of a batch have one length, so
                    that there is no padding.
                    Default: False

    Returns:
        list[list[int]]:
        - For each batch the places of its texts in ``lengths``, shortest text first;
          texts of one length keep their order.

    Raises:

        ValueError: If ``tokens_per_batch`` is below 1.

    Examples::

        >>> by_length([2, 9, 2, 3], tokens_per_batch=9)
        [[0, 2, 3], [1]]
    """
    if tokens_per_batch < 1:
        raise ValueError(f"tokens_per_batch is {tokens_per_batch}; expected 1 or more.")
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        # In this order the newest text is the longest of its batch.
        fits = bool(batches) and not (
            same_length and lengths[place] != lengths[batches[-1][0]]
        )
        if fits and lengths[place] * (len(batches[-1]) + 1) <= tokens_per_batch:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches
