"""Attention gradient of every (query, key) pair, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum._utils.typing import TargetType
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._base import AttentionAttribution, Inputs, grouped
from captum_attngrad.attr._reductions import pair_scores
from captum_attngrad.attr._target import LossFunction
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.recorder import AttentionRecord

Maps = Tensor | list[Tensor]


class LayerAttentionGradient(AttentionAttribution):
    r"""
    The gradient of the model's output with respect to the attention weights of a
    layer, for every head, query and key: :math:`G = \partial s / \partial A`, where s
    is the output for the target, or minus the loss. Positive: more attention of this
    query to this key supports the explained output; negative: it opposes it.

    The result has the size of the attention weights, (queries x keys) for each head;
    :class:`AttentionGradient` gives their sums without building them.

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
            loss_func (Callable, optional): Explain minus this loss, as for
                        :class:`AttentionGradient`.
                        Default: None
        """
        super().__init__(
            forward_func,
            layer,
            device_ids,
            multiply_by_attention=multiply_by_attention,
            center=center,
            loss_func=loss_func,
        )

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        return_attention: bool = False,
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

        Returns:
            *Tensor* or list of **attributions**, or a pair of **attributions** and
            **attention**:
            - **attributions** (*Tensor* or *list[Tensor]*):
                        ``(batch, heads, queries, keys)``. A list if ``layer`` is a
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
                        layer; a target that is missing or out of range.
            RuntimeError: the output does not depend on the attention weights; an
                        attention dropout is active.

        Examples::

            >>> layer_ag = LayerAttentionGradient(model, model.encoder.layers[-1])
            >>> # (N, heads, L, L)
            >>> attributions = layer_ag.attribute(input_ids, target=1)
        """
        record = self._record(
            inputs, target, additional_forward_args, value_gradients=False
        )
        chosen = self._chosen(record)
        maps = [self._joined(parts, attention=False) for parts in chosen]
        single = isinstance(self.layer, Module)
        if not return_attention:
            return maps[0] if single else maps
        weights = [self._joined(parts, attention=True) for parts in chosen]
        return (maps[0], weights[0]) if single else (maps, weights)

    def _chosen(self, record: AttentionRecord) -> list[list[list[AttentionCall]]]:
        """The calls of each layer, one list per replica."""
        if self.layer is None:
            return [parts for _, parts in grouped(record)]
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
            chosen.append(parts)
        return chosen

    def _joined(self, parts: list[list[AttentionCall]], attention: bool) -> Tensor:
        for calls in parts:
            shapes = {(call.heads, call.key_length) for call in calls}
            if len(shapes) > 1:
                raise ValueError(
                    f"The calls of layer {calls[0].layer!r} cannot be joined along the "
                    "queries: they have different (heads, keys): "
                    f"{sorted(shapes)}."
                )
        replicas = [
            torch.cat([self._map(call, attention) for call in calls], dim=2)
            for calls in parts
        ]
        return torch.cat([part.to(replicas[0].device) for part in replicas])

    def _map(self, call: AttentionCall, attention: bool) -> Tensor:
        if attention:
            return call.weights()
        if not call.on_path:
            return torch.zeros_like(call.weights())
        return pair_scores(call, self._multiply_by_attention, self._center)
