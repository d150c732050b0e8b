from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad.text import pad_batch


def test_a_known_batch() -> None:
    ids, mask = pad_batch([[5, 6, 7], [0], []], padding_value=9)
    assert ids.tolist() == [[5, 6, 7], [0, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool


def test_the_padding_id_inside_a_sequence_counts() -> None:
    _, mask = pad_batch([[1, 0, 2], [3]], padding_value=0)
    assert mask[0].tolist() == [True, True, True]


@given(st.lists(st.lists(st.integers(0, 5), max_size=7), min_size=1, max_size=5))
def test_the_mask_gives_the_sequences_back(sequences: list[list[int]]) -> None:
    ids, mask = pad_batch(sequences, padding_value=0)
    assert ids.shape == mask.shape == (len(sequences), max(map(len, sequences)))
    rows = zip(ids, mask, strict=True)
    assert [row[keep].tolist() for row, keep in rows] == sequences


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sequence"):
        pad_batch([], padding_value=0)
