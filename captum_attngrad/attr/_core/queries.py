"""Which query rows count: all of them, one for each example, or a mask of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_attngrad.attr._core.heads import Calls
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.keys import KeyStatus

Query = int | Tensor | None
# Scores of one call: summed over all its queries (None), over those of a boolean mask
# (batch, queries), or in one row for each example, (batch,).
OfCall = Callable[[AttentionCall, Tensor | None], Tensor]


def checked_query(query: Query, examples: int, masks: bool = False) -> Query:
    """``query`` if it is of an allowed form."""
    if query is None or (isinstance(query, int) and not isinstance(query, bool)):
        return query
    if isinstance(query, Tensor) and query.dtype == torch.bool and masks:
        if query.dim() != 2 or len(query) != examples:
            raise ValueError(
                f"query has shape {tuple(query.shape)}, expected ({examples}, queries):"
                " which rows to sum, for each example."
            )
        return query
    if not isinstance(query, Tensor) or not _whole(query):
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


def _whole(tensor: Tensor) -> bool:
    other = tensor.is_floating_point() or tensor.is_complex()
    return not other and tensor.dtype != torch.bool


def sum_over_calls(
    name: str, parts: Calls, query: Query, of_call: OfCall
) -> list[Tensor]:
    """The scores of one attention module, summed over its calls, for each replica.

    Rows are counted on over the calls that a module makes in one forward pass.
    """
    totals: list[Tensor] = []
    first = 0
    for calls in parts:
        last = first + calls[0].batch_size
        part = query[first:last] if isinstance(query, Tensor) else query
        totals.append(_sum(name, calls, part, of_call))
        first = last
    return totals


def _sum(
    name: str, calls: list[AttentionCall], query: Query, of_call: OfCall
) -> Tensor:
    if query is None:
        scores = [of_call(call, None) for call in calls]
    elif isinstance(query, Tensor) and query.dtype == torch.bool:
        lengths = [call.query_length for call in calls]
        check_mask(query, name, sum(lengths))
        masks = query.to(calls[0].device).split(lengths, dim=1)
        scores = [of_call(c, mask) for c, mask in zip(calls, masks, strict=True)]
    else:
        total = sum(call.query_length for call in calls)
        rows = rows_of_examples(name, calls[0], query, total)
        scores = []
        for call in calls:
            here = (rows >= 0) & (rows < call.query_length)
            if bool(here.any()) or not scores:
                found = of_call(call, rows.clamp(0, call.query_length - 1))
                scores.append(found * here.view(-1, *[1] * (found.dim() - 1)))
            rows = rows - call.query_length
    result = scores[0]
    for more in scores[1:]:
        result = result + more
    return result


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


def join(parts: list[Tensor]) -> Tensor:
    """The examples of all replicas, on the device of the first."""
    return torch.cat([part.to(parts[0].device) for part in parts])


def check_keys(layers: list[tuple[str, Calls]]) -> None:
    """Scores are added only where keys stand for the same tokens.

    Raises:
        ValueError: keys that are no tokens, or that differ between layers.
    """
    groups: dict[tuple[int, int], list[str]] = {}
    for name, parts in layers:
        for call in parts[0]:
            if call.keys_are.status is KeyStatus.APART:
                raise ValueError(_no_tokens(name, call))
            group = (call.key_length, call.keys_are.group)
            names = groups.setdefault(group, [])
            if name not in names:
                names.append(name)
    if len(groups) > 1:
        listed = "; ".join(
            f"{length} keys in {', '.join(map(repr, names))}"
            for (length, _), names in groups.items()
        )
        raise ValueError(
            f"The layers attend to different keys and cannot be summed: {listed}. "
            "Choose layers with the same keys with layer=[...], or use "
            "LayerAttentionGradient, which keeps layers apart."
        )
    for name, parts in layers:
        for call in parts[0]:
            if call.keys_are.status is KeyStatus.OTHER:
                raise ValueError(_no_tokens(name, call))


def _no_tokens(name: str, call: AttentionCall) -> str:
    if call.keys_are.status is KeyStatus.APART:
        what = "works on windows, blocks or channels, each of which has keys of its own"
    else:
        what = (
            f"attends to {call.key_length} keys that are not the tokens of the input "
            "in their order (pooled, compressed or shifted)"
        )
    return (
        f"Layer {name!r} {what}, so that there is no score for each token of the "
        "input. Choose other layers with layer=[...], or use LayerAttentionGradient, "
        "which returns the maps as they are."
    )
