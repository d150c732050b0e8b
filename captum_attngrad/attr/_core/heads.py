"""Which heads of which layers count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.recorder import AttentionRecord

Heads = Sequence[Any] | Tensor | None
Calls = list[list[AttentionCall]]  # the calls of one module, one list per replica


def checked_heads(heads: Heads) -> Tensor | None:
    """``heads`` as a tensor: 1-D of integers, or a boolean mask."""
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
    whole = not (chosen.is_floating_point() or chosen.is_complex())
    if chosen.dim() != 1 or not (whole or not chosen.numel()):
        raise ValueError(f"{_EXPECTED}, got {heads!r:.80}.")
    if not chosen.numel():
        raise ValueError("heads chooses no head: the list is empty.")
    return chosen


_EXPECTED = (
    "heads must be a list of indices, or a boolean mask of shape (heads,) or "
    "(layers, heads)"
)


def grouped(record: AttentionRecord) -> list[tuple[str, Calls]]:
    """The calls of each attention module, ``(name, one list of calls per replica)``,
    in the order of ``layer``; within one of its modules, as they run."""
    first: dict[str, int] = {}
    for call in record:
        place = min(call.scopes, default=0)
        first[call.layer] = min(place, first.get(call.layer, place))
    return [
        (name, [[call for call in part if call.layer == name] for part in record.parts])
        for name in sorted(first, key=first.__getitem__)  # keeps the order of equals
    ]


def heads_of_layers(
    heads: Tensor | None, layers: list[tuple[str, Calls]]
) -> dict[str, Tensor | None]:
    """The indices of the chosen heads of each attention module; None: all of them."""
    if heads is None:
        return {name: None for name, _ in layers}
    is_mask = heads.dtype == torch.bool
    if is_mask and heads.dim() == 2 and len(heads) != len(layers):
        raise ValueError(
            f"heads is a mask for {len(heads)} layers, and there are {len(layers)}: "
            f"{', '.join(repr(name) for name, _ in layers)}."
        )
    chosen: dict[str, Tensor | None] = {}
    for i, (name, parts) in enumerate(layers):
        for size in sorted({call.heads for part in parts for call in part}):
            if is_mask:
                mask = heads if heads.dim() == 1 else heads[i]
                if len(mask) != size:
                    raise ValueError(
                        f"heads is a mask for {len(mask)} heads, and layer {name!r} "
                        f"has {size}."
                    )
                chosen[name] = mask.nonzero().squeeze(1)
            else:
                chosen[name] = _indices(heads, name, size)
    return chosen


def _indices(heads: Tensor, name: str, size: int) -> Tensor:
    bad = heads[(heads < -size) | (heads >= size)]
    if bad.numel():
        raise ValueError(
            f"head {int(bad[0])} is out of range: layer {name!r} has {size} heads."
        )
    indices = torch.where(heads < 0, heads + size, heads)
    if indices.unique().numel() < indices.numel():
        raise ValueError(f"heads names a head more than once: {heads.tolist()}.")
    return indices


def select(scores: Tensor, heads: Tensor | None) -> Tensor:
    """The chosen heads, in dimension 1."""
    return scores if heads is None else scores.index_select(1, heads.to(scores.device))
