"""The attention calls of one layer: joined, summed and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_attngrad.attr._core.selection import (
    Query,
    check_mask,
    indices_of_heads,
    rows_of_examples,
    select,
)
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.keys import KeyStatus
from captum_attngrad.capture.record import AttentionRecord

Replicas = list[list[AttentionCall]]
# Scores of one call, ``(batch, heads, ...)``: summed over all its queries (None), over
# those of a boolean mask (batch, queries), or in one row for each example, (batch,).
OfCall = Callable[[AttentionCall, Tensor | None], Tensor]
OverHeads = Callable[[Tensor], Tensor]


def sum_over_heads(scores: Tensor) -> Tensor:
    return scores.sum(dim=1)


def mean_over_heads(scores: Tensor) -> Tensor:
    """0 where there is no head."""
    return scores.sum(dim=1) / max(1, scores.shape[1])


def every_head(scores: Tensor) -> Tensor:
    return scores


@dataclass(frozen=True)
class LayerCalls:
    """
    The attention calls that one module made in a forward pass.

    Args:
        name (str): the module's name.
        replicas (list of lists of AttentionCall): its calls, in their order, for each
            replica of the model.
        heads (Tensor, optional): the indices of the chosen heads. Default: all
    """

    name: str
    replicas: Replicas
    heads: Tensor | None = None

    @property
    def calls(self) -> list[AttentionCall]:
        """Those of all replicas."""
        return [call for calls in self.replicas for call in calls]

    def total(
        self,
        of_call: OfCall,
        query: Query = None,
        over_heads: OverHeads = sum_over_heads,
    ) -> Tensor:
        """Scores of all examples, summed over the calls and over the chosen queries.

        The rows of several calls are counted on from one call to the next.
        """

        def of_heads(call: AttentionCall, rows: Tensor | None) -> Tensor:
            return over_heads(select(of_call(call, rows), self.heads))

        return join(
            [
                _total(self.name, calls, rows, of_heads)
                for calls, rows in with_queries(self.replicas, query)
            ]
        )

    def concatenated(
        self, of_call: OfCall, over_heads: OverHeads = every_head, dim: int = 2
    ) -> Tensor:
        """Scores of all examples; those of several calls one after the other, in the
        dimension of the queries."""
        found = [
            [over_heads(select(of_call(call, None), self.heads)) for call in calls]
            for calls in self.replicas
        ]
        return join([torch.cat(scores, dim=dim) for scores in found])

    def check_same_shape(self) -> None:
        """
        Raises:
            ValueError: if the calls differ in heads or keys.
        """
        shapes = {(call.heads, call.key_length) for call in self.calls}
        if len(shapes) > 1:
            raise ValueError(
                f"The calls of layer {self.name!r} cannot be joined along the "
                f"queries: they have different (heads, keys): {sorted(shapes)}."
            )


def layer_calls(record: AttentionRecord) -> list[LayerCalls]:
    """The calls of each attention module, in the order of ``layer``; within one of its
    modules, as they run."""
    first: dict[str, int] = {}
    for call in record:
        scope = min(call.scopes, default=0)
        first[call.layer] = min(scope, first.get(call.layer, scope))
    return [
        LayerCalls(
            name, [[c for c in part if c.layer == name] for part in record.replicas]
        )
        for name in sorted(first, key=first.__getitem__)  # keeps the order of equals
    ]


def with_heads(layers: list[LayerCalls], heads: Tensor | None) -> list[LayerCalls]:
    """The layers with their chosen heads.

    Raises:
        ValueError: if there are no such layers, or a layer has no such heads.
    """
    if heads is None:
        return layers
    is_mask = heads.dtype == torch.bool
    if is_mask and heads.dim() == 2 and len(heads) != len(layers):
        raise ValueError(
            f"heads is a mask for {len(heads)} layers, and there are {len(layers)}: "
            f"{', '.join(repr(layer.name) for layer in layers)}."
        )
    chosen = []
    for i, layer in enumerate(layers):
        given = heads[i] if is_mask and heads.dim() == 2 else heads
        for size in sorted({call.heads for call in layer.calls}):
            layer = replace(layer, heads=indices_of_heads(given, layer.name, size))
        chosen.append(layer)
    return chosen


def total_over_layers(
    layers: list[LayerCalls],
    of_call: OfCall,
    query: Query = None,
    over_heads: OverHeads = sum_over_heads,
) -> Tensor:
    """:meth:`LayerCalls.total`, summed over the layers, on the device of the first."""
    return add(layer.total(of_call, query, over_heads) for layer in layers)


def add(scores: Iterator[Tensor]) -> Tensor:
    """The sum, on the device of the first."""
    total = next(scores)
    for more in scores:
        total = total + more.to(total.device)
    return total


def join(replicas: list[Tensor]) -> Tensor:
    """The examples of all replicas, on the device of the first."""
    return torch.cat([each.to(replicas[0].device) for each in replicas])


def with_queries(
    replicas: Replicas, query: Query
) -> Iterator[tuple[list[AttentionCall], Query]]:
    """The calls of each replica, with what ``query`` is for its examples."""
    first = 0
    for calls in replicas:
        last = first + calls[0].batch_size
        yield calls, query[first:last] if isinstance(query, Tensor) else query
        first = last


def _total(
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
    return add(iter(scores))


# -- what the keys stand for --------------------------------------------------------


def check_same_keys(layers: list[LayerCalls]) -> None:
    """Scores are added only where keys stand for the same tokens.

    Raises:
        ValueError: if keys are not tokens, or differ between layers.
    """
    # The calls of one replica tell: all are alike.
    calls = [(layer.name, call) for layer in layers for call in layer.replicas[0]]
    groups: dict[tuple[int, int], list[str]] = {}
    for name, call in calls:
        if call.keys_are.status is KeyStatus.APART:
            raise ValueError(_not_tokens(name, call))
        names = groups.setdefault((call.key_length, call.keys_are.group), [])
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
    for name, call in calls:
        if call.keys_are.status is KeyStatus.OTHER:
            raise ValueError(_not_tokens(name, call))


def _not_tokens(name: str, call: AttentionCall) -> str:
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
