"""Rows of attention matrices, multiplied through self-attention layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_attngrad.attr._core.layer_calls import (
    check_same_keys,
    join,
    layer_calls,
    with_queries,
)
from captum_attngrad.attr._core.reductions import zeros
from captum_attngrad.attr._core.selection import Query, check_mask, rows_of_examples
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.record import AttentionRecord


def check_sequence(record: AttentionRecord, method: str) -> None:
    """All calls are self-attention of one sequence.

    Raises:
        ValueError: if their lengths differ, or their keys stand for different tokens.
    """
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
    check_same_keys(layer_calls(record))


def propagated(
    record: AttentionRecord,
    query: Query,
    through: Callable[[Tensor, AttentionCall], Tensor],
) -> Tensor:
    """The chosen rows, followed from the last call to the first, ``(batch, tokens)``.

    Args:
        record (AttentionRecord): consecutive calls.
        query (int or Tensor, optional): the chosen rows.
        through (Callable): from rows above a call, ``(batch, queries)``, to rows below.
    """
    replicas = []
    for calls, chosen in with_queries(record.replicas, query):
        rows = row_vector(calls[-1], chosen)
        for call in reversed(calls):
            rows = through(rows.to(call.device), call)
        replicas.append(rows)
    return join(replicas)


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
