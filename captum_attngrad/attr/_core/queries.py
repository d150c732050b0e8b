"""Which query rows count: all of them, one for each example, or a mask of them."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_attngrad.capture.calls import AttentionCall

Query = int | Tensor | None


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
