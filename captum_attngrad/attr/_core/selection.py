"""Which heads count, and which query rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture.calls import AttentionCall

Heads = Sequence[Any] | Tensor | None
Query = int | Tensor | None

_EXPECTED_HEADS = (
    "heads must be a list of indices, or a boolean mask of shape (heads,) or "
    "(layers, heads)"
)


def checked_heads(heads: Heads) -> Tensor | None:
    """``heads`` as a tensor: 1-D of integers, or a boolean mask.

    Raises:
        ValueError: if it is neither, or chooses no head.
    """
    if heads is None:
        return None
    try:
        chosen = torch.as_tensor(heads)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{_EXPECTED_HEADS}, got {heads!r:.80}.") from error
    if chosen.dtype == torch.bool and chosen.dim() in (1, 2):
        if not chosen.any():
            raise ValueError("heads chooses no head: the mask is False everywhere.")
        return chosen
    is_integer = not (chosen.is_floating_point() or chosen.is_complex())
    if chosen.dim() != 1 or not (is_integer or not chosen.numel()):
        raise ValueError(f"{_EXPECTED_HEADS}, got {heads!r:.80}.")
    if not chosen.numel():
        raise ValueError("heads chooses no head: the list is empty.")
    return chosen


def indices_of_heads(heads: Tensor, layer: str, size: int) -> Tensor:
    """The chosen heads of a layer, of ``size``, as indices from 0.

    Raises:
        ValueError: if the layer has no such heads.
    """
    if heads.dtype == torch.bool:
        if len(heads) != size:
            raise ValueError(
                f"heads is a mask for {len(heads)} heads, and layer {layer!r} has "
                f"{size}."
            )
        return heads.nonzero().squeeze(1)
    wrong = heads[(heads < -size) | (heads >= size)]
    if wrong.numel():
        raise ValueError(
            f"head {int(wrong[0])} is out of range: layer {layer!r} has {size} heads."
        )
    indices = torch.where(heads < 0, heads + size, heads)
    if indices.unique().numel() < indices.numel():
        raise ValueError(f"heads names a head more than once: {heads.tolist()}.")
    return indices


def select(scores: Tensor, heads: Tensor | None) -> Tensor:
    """The chosen heads, in dimension 1."""
    return scores if heads is None else scores.index_select(1, heads.to(scores.device))


def checked_query(query: Query, examples: int, masks: bool = False) -> Query:
    """``query``, if its form is allowed.

    Args:
        query (int or Tensor, optional): which rows.
        examples (int): the number of examples.
        masks (bool): whether a boolean mask is allowed.

    Raises:
        ValueError: if it is not.
    """
    if query is None or (isinstance(query, int) and not isinstance(query, bool)):
        return query
    if isinstance(query, Tensor) and query.dtype == torch.bool and masks:
        if query.dim() != 2 or len(query) != examples:
            raise ValueError(
                f"query has shape {tuple(query.shape)}, expected ({examples}, queries):"
                " which rows to sum, for each example."
            )
        return query
    if not isinstance(query, Tensor) or not _is_integer(query):
        given = query.dtype if isinstance(query, Tensor) else type(query).__name__
        also = ", or a boolean tensor (batch, queries)" if masks else ""
        raise ValueError(
            f"query must be None, an int or a tensor of integers{also}, got {given}."
        )
    if query.dim() == 0:
        return int(query.item())
    if tuple(query.shape) != (examples,):
        raise ValueError(
            f"query has shape {tuple(query.shape)}, expected ({examples},): one row "
            "for each example."
        )
    return query


def _is_integer(tensor: Tensor) -> bool:
    other = tensor.is_floating_point() or tensor.is_complex()
    return not other and tensor.dtype != torch.bool


def rows_of_examples(
    name: str, call: AttentionCall, query: Query, total: int
) -> Tensor:
    """The chosen row of each example, of ``total``, counted from the start."""
    rows = torch.as_tensor(query, device=call.device).expand(call.batch_size)
    bad = rows[(rows < -total) | (rows >= total)]
    if bad.numel():
        raise ValueError(
            f"query={int(bad[0])} is out of range: layer {name!r} has {total} queries."
        )
    return torch.where(rows < 0, rows + total, rows)


def check_mask(query: Tensor, name: str, total: int) -> None:
    if query.shape[1] != total:
        raise ValueError(
            f"query is a mask for {query.shape[1]} queries, and layer {name!r} has "
            f"{total}."
        )
