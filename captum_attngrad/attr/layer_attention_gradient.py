"""Attention gradient of every (query, key) pair, layer by layer."""

from __future__ import annotations

from functools import partial
from typing import Literal

from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import TargetType
from captum_attngrad.attr._core.base import PairScoresAttribution
from captum_attngrad.attr._core.inputs import Inputs, number_of_examples
from captum_attngrad.attr._core.layer_calls import (
    LayerCalls,
    OfCall,
    every_head,
    layer_calls,
    with_heads,
)
from captum_attngrad.attr._core.selection import Query, checked_query
from captum_attngrad.capture.calls import ALL_ROWS, AttentionCall
from captum_attngrad.capture.record import AttentionRecord

Maps = Tensor | list[Tensor]
Reduce = Literal["head", "key", "query"] | None


class LayerAttentionGradient(PairScoresAttribution):
    r"""
    The gradient of the model's output with respect to the attention weights of a
    layer, for every head, query and key: :math:`G = \partial s / \partial A`, where s
    is the output for the target, or minus the loss. Positive: more attention of this
    query to this key supports the explained output; negative: it opposes it.

    The result has the size of the attention weights, (queries x keys) for each head.
    ``attribute(..., reduce="head")`` gives one score for each head, and
    :class:`AttentionGradient` one for each token, without building them.

    The options are those of :class:`AttentionGradient`. Each module in ``layer`` may
    contain its attention at any depth, but only one attention module. With
    ``layer=None`` the result is a list with one entry for every attention layer. Chosen
    ``heads`` are returned in the order in which they are given.

    Based on S. Chakraborty, T. Le, P. Gurram and R. Tomsett, *Paying Attention to
    Attention for Explanation* (2020).
    """

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
        scores = self.pair_scores
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
        run = self.runner().run(
            inputs,
            target,
            additional_forward_args,
            graph=True,
            value_gradients=scores.uses_value_gradients
            and reduce in ("head", "key")
            and query is None,
        )
        query = checked_query(query, number_of_examples(inputs))
        layers = with_heads(self._chosen(run.record), self._heads)
        of_call = partial(self._scores_of_call, reduce)
        by_query = reduce in (None, "query")
        maps = [_map(layer, of_call, query, by_query) for layer in layers]
        single = isinstance(self.layer, Module)
        if not return_attention:
            return maps[0] if single else maps
        weights = [_map(layer, _attention, query, True) for layer in layers]
        return (maps[0], weights[0]) if single else (maps, weights)

    def _chosen(self, record: AttentionRecord) -> list[LayerCalls]:
        """The attention module in each layer, with its calls."""
        if self.layer is None:
            return layer_calls(record)
        chosen = []
        for scope, layer in enumerate(self._layers()):
            replicas = [
                [c for c in part if scope in c.scopes] for part in record.replicas
            ]
            names = list(dict.fromkeys(call.layer for call in replicas[0]))
            if len(names) > 1:
                raise ValueError(
                    f"layer {type(layer).__name__} contains {len(names)} attention "
                    f"modules: {', '.join(names)}. Pass them as a list, layer=[...], "
                    "to get one result for each."
                )
            chosen.append(LayerCalls(names[0], replicas))
        return chosen

    def _scores_of_call(
        self, reduce: Reduce, call: AttentionCall, rows: Tensor | None
    ) -> Tensor:
        if reduce in ("head", "key"):
            scores = self.pair_scores.of_keys(call, rows)
            return scores if reduce == "key" else scores.sum(dim=2)
        if reduce == "query" and rows is None:
            return self.pair_scores.of_queries(call)
        scores = self.pair_scores.of_pairs(call, ALL_ROWS if rows is None else rows)
        return scores if reduce is None else scores.sum(dim=3)


def _attention(call: AttentionCall, rows: Tensor | None) -> Tensor:
    return call.weights(ALL_ROWS if rows is None else rows)


def _map(layer: LayerCalls, of_call: OfCall, query: Query, by_query: bool) -> Tensor:
    """The rows of all calls, one after the other, or their sum, or the chosen row."""
    layer.check_same_shape()
    if by_query and query is None:
        return layer.concatenated(of_call)
    return layer.total(of_call, query, every_head)
