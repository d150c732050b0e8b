"""Consecutive self-attention layers over one sequence."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from captum_attngrad.attr._core.heads import grouped
from captum_attngrad.attr._core.queries import (
    Query,
    check_keys,
    check_mask,
    rows_of_examples,
)
from captum_attngrad.attr._core.reductions import zeros
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.recorder import AttentionRecord


def check_sequence(record: AttentionRecord, method: str) -> None:
    """All calls are self-attention of one sequence: their lengths agree, and their keys
    stand for the same tokens."""
    first = record[0]
    for call in record:
        if call.query_length != call.key_length:
            raise ValueError(
                f"{method} multiplies self-attention through the layers, and layer "
                f"{call.layer!r} attends from {call.query_length} queries to "
                f"{call.key_length} keys. Choose self-attention layers of one sequence "
                "with layer=[...]."
            )
        if call.key_length != first.key_length:
            raise ValueError(
                f"{method} multiplies self-attention through the layers of one "
                f"sequence, and layer {first.layer!r} has {first.key_length} tokens, "
                f"layer {call.layer!r} {call.key_length}. Choose layers of one of them "
                "with layer=[...]."
            )
    check_keys(grouped(record))


def with_query(
    record: AttentionRecord, query: Query
) -> Iterator[tuple[list[AttentionCall], Query]]:
    """The calls of each replica, with what ``query`` is for its examples."""
    first = 0
    for calls in record.parts:
        last = first + calls[0].batch_size
        yield calls, query[first:last] if isinstance(query, Tensor) else query
        first = last


def row_vector(call: AttentionCall, query: Query) -> Tensor:
    """The chosen rows of an identity matrix, summed: ``(batch, queries)``."""
    total = call.query_length
    chosen = zeros(call, total)
    if query is None:
        return chosen + 1
    if isinstance(query, Tensor) and query.dtype == torch.bool:
        check_mask(query, call.layer, total)
        return chosen + query.to(chosen.device)
    rows = rows_of_examples(call.layer, call, query, total)
    return chosen.scatter(1, rows.unsqueeze(1), 1)
