"""Which heads count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Heads = Sequence[Any] | Tensor | None

_EXPECTED = (
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
        raise ValueError(f"{_EXPECTED}, got {heads!r:.80}.") from error
    if chosen.dtype == torch.bool and chosen.dim() in (1, 2):
        if not chosen.any():
            raise ValueError("heads chooses no head: the mask is False everywhere.")
        return chosen
    is_integer = not (chosen.is_floating_point() or chosen.is_complex())
    if chosen.dim() != 1 or not (is_integer or not chosen.numel()):
        raise ValueError(f"{_EXPECTED}, got {heads!r:.80}.")
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
