"""Attention gradient of every (query, key) pair, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.base import AttentionGradientAttribution, Inputs
from captum_attngrad.attr._core.heads import (
    Calls,
    Heads,
    grouped,
    heads_of_layers,
    select,
)
from captum_attngrad.attr._core.queries import (
    OfCall,
    Query,
    checked_query,
    join,
    sum_over_calls,
)
from captum_attngrad.attr._core.reductions import PairScores, zeros
from captum_attngrad.attr._core.target import LossFunction
from captum_attngrad.capture.calls import ALL_ROWS, AttentionCall
from captum_attngrad.capture.recorder import AttentionRecord

Maps = Tensor | list[Tensor]
Reduce = Literal["head", "key", "query"] | None


class LayerAttentionGradient(AttentionGradientAttribution):
    r"""
    The gradient of the model's output with respect to the attention weights of a
    layer, for every head, query and key: :math:`G = \partial s / \partial A`, where s
    is the output for the target, or minus the loss. Positive: more attention of this
    query to this key supports the explained output; negative: it opposes it.

    The result has the size of the attention weights, (queries x keys) for each head.
    ``attribute(..., reduce="head")`` gives one score for each head, and
    :class:`AttentionGradient` one for each token, without building them.

    Based on S. Chakraborty, T. Le, P. Gurram and R. Tomsett, *Paying Attention to
    Attention for Explanation* (2020).
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        multiply_by_attention: bool = False,
        center: bool = False,
        positive_only: bool = False,
        heads: Heads = None,
        loss_func: LossFunction | None = None,
    ) -> None:
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model, or any function
                        that runs it, as for :class:`AttentionGradient`.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The
                        attention modules. A module may contain its attention at any
                        depth, but only one attention module.
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then, as a list
            device_ids (list[int], optional): Device ID list, necessary only if
                        forward_func applies a DataParallel model.
                        Default: None
            multiply_by_attention (bool, optional): Multiply by the attention
                        weights, as for :class:`AttentionGradient`.
                        Default: False
            center (bool, optional): Take the attention-weighted row mean off, as for
                        :class:`AttentionGradient`.
                        Default: False
            positive_only (bool, optional): Set the negative scores of pairs to 0
                        before any sum, as for :class:`AttentionGradient`.
                        Default: False
            heads (list[int] or Tensor, optional): The heads to return, as for
                        :class:`AttentionGradient`. In the results the chosen heads
                        stand in the order of the list.
                        Default: None, all heads
            loss_func (Callable, optional): Explain minus this loss, as for
                        :class:`AttentionGradient`.
                        Default: None
        """
        super().__init__(
            forward_func, layer, device_ids, heads=heads, loss_func=loss_func
        )
        self._scores = PairScores(multiply_by_attention, center, positive_only)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the gradient is multiplied by the attention weights."""
        return self._scores.multiply

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        return_attention: bool = False,
        query: Query = None,
        reduce: Reduce = None,
    ) -> Maps | tuple[Maps, Maps]:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input for which attributions are
                        computed, as for :meth:`AttentionGradient.attribute`.
            target (int, tuple, Tensor, or list, optional): Output index, as for
                        :meth:`AttentionGradient.attribute`.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of
                        forward_func.
                        Default: None
            return_attention (bool, optional): Return the attention weights too.
                        Default: False
            query (int or Tensor, optional): Only one query row, as for
                        :meth:`AttentionGradient.attribute`.
                        Default: None, all of them
            reduce (str, optional): Sum the scores, down to one for each head
                        (``"head"``: which heads speak for the output?), for each key
                        in each head (``"key"``), or for each query in each head
                        (``"query"``). On fused attention the sums are taken without
                        building a (queries x keys) tensor.
                        Default: None, no sum

        Returns:
            *Tensor* or list of **attributions**, or a pair of **attributions** and
            **attention**:
            - **attributions** (*Tensor* or *list[Tensor]*):
                        ``(batch, heads, queries, keys)``; with ``reduce``,
                        ``(batch, heads)``, ``(batch, heads, keys)`` or ``(batch,
                        heads, queries)``. A list if ``layer`` is a
                        list (one for each of its modules) or None (one for each
                        attention layer, in the order in which they run). The calls
                        of a layer that runs several times in one forward pass are
                        joined along the queries. Pairs that the mask forbids are
                        exactly 0.
            - **attention** (*Tensor* or *list[Tensor]*):
                        The attention weights, of the same shapes. Only if
                        ``return_attention`` is True.

        Raises:
            ValueError: no attention in a layer; several attention modules in one
                        layer; a target that is missing or out of range; a query or
                        a head that is out of range; ``reduce`` with
                        ``return_attention``, or where the sum is 0 by construction.
            RuntimeError: the output does not depend on the attention weights; an
                        attention dropout is active.

        Examples::

            >>> layer_ag = LayerAttentionGradient(model, model.encoder.layers[-1])
            >>> # (N, heads, L, L)
            >>> attributions = layer_ag.attribute(input_ids, target=1)
            >>> # Which heads speak for class 1, which against it? (N, heads) each
            >>> per_layer = LayerAttentionGradient(model).attribute(
            ...     input_ids, target=1, reduce="head"
            ... )
        """
        if reduce not in (None, "head", "key", "query"):
            raise ValueError(
                f"reduce={reduce!r} is unknown: it is None (no sum), 'head', 'key' or "
                "'query'."
            )
        if reduce is not None and return_attention:
            raise ValueError(
                f"return_attention=True goes with whole maps, and reduce={reduce!r} "
                "sums them. Leave one of the two out."
            )
        scores = self._scores
        if (
            reduce in ("head", "query")
            and scores.multiply
            and scores.center
            and not scores.positive_only
        ):
            raise ValueError(
                "With multiply_by_attention and center the scores of a row sum to 0 "
                f"by construction, so reduce={reduce!r} would be 0 everywhere. Leave "
                "center out, or use reduce='key'."
            )
        record = self._record(
            inputs,
            target,
            additional_forward_args,
            value_gradients=scores.uses_value_gradients
            and reduce in ("head", "key")
            and query is None,
        )
        query = checked_query(query, sum(p[0].batch_size for p in record.parts))
        chosen = self._chosen(record)
        heads = heads_of_layers(self._heads, chosen)
        maps = [
            self._scores_of_layer(name, parts, query, reduce, heads[name])
            for name, parts in chosen
        ]
        single = isinstance(self.layer, Module)
        if not return_attention:
            return maps[0] if single else maps
        weights = [
            _joined(name, parts, query, partial(_attention, heads[name]))
            for name, parts in chosen
        ]
        return (maps[0], weights[0]) if single else (maps, weights)

    def _chosen(self, record: AttentionRecord) -> list[tuple[str, Calls]]:
        """The attention module in each layer, with its calls."""
        if self.layer is None:
            return grouped(record)
        chosen = []
        for scope, layer in enumerate(self._layers()):
            parts = [[c for c in part if scope in c.scopes] for part in record.parts]
            names = list(dict.fromkeys(call.layer for call in parts[0]))
            if len(names) > 1:
                raise ValueError(
                    f"layer {type(layer).__name__} contains {len(names)} attention "
                    f"modules: {', '.join(names)}. Pass them as a list, layer=[...], "
                    "to get one result for each."
                )
            chosen.append((names[0], parts))
        return chosen

    def _scores_of_layer(
        self,
        name: str,
        parts: Calls,
        query: Query,
        reduce: Reduce,
        heads: Tensor | None,
    ) -> Tensor:
        of_call = partial(self._scores_of_call, reduce, heads)
        if query is None and reduce in (None, "query"):
            return _joined(name, parts, None, of_call)
        _check_alike(parts)
        return join(sum_over_calls(name, parts, query, of_call))

    def _scores_of_call(
        self,
        reduce: Reduce,
        heads: Tensor | None,
        call: AttentionCall,
        rows: Tensor | None,
    ) -> Tensor:
        if not call.on_path:
            queries = call.query_length if rows is None else 1
            shapes: dict[Reduce, tuple[int, ...]] = {
                None: (queries, call.key_length),
                "head": (),
                "key": (call.key_length,),
                "query": (queries,),
            }
            scores = zeros(call, call.heads, *shapes[reduce])
        elif rows is not None or reduce is None:
            scores = self._scores.of_pairs(call, ALL_ROWS if rows is None else rows)
            if reduce is not None:
                dims = {"head": (2, 3), "key": (2,), "query": (3,)}
                scores = scores.sum(dim=dims[reduce])
        elif reduce == "query":
            scores = self._scores.of_queries(call)
        else:
            scores = self._scores.of_keys(call)
            if reduce == "head":
                scores = scores.sum(dim=2)
        return select(scores, heads)


def _attention(
    heads: Tensor | None, call: AttentionCall, rows: Tensor | None
) -> Tensor:
    return select(call.weights(ALL_ROWS if rows is None else rows), heads)


def _joined(name: str, parts: Calls, query: Query, of_call: OfCall) -> Tensor:
    """The rows of all calls, one after the other, or the chosen row."""
    _check_alike(parts)
    if query is not None:
        return join(sum_over_calls(name, parts, query, of_call))
    return join(
        [torch.cat([of_call(call, None) for call in calls], dim=2) for calls in parts]
    )


def _check_alike(parts: Calls) -> None:
    for calls in parts:
        shapes = {(call.heads, call.key_length) for call in calls}
        if len(shapes) > 1:
            raise ValueError(
                f"The calls of layer {calls[0].layer!r} cannot be joined along the "
                f"queries: they have different (heads, keys): {sorted(shapes)}."
            )
