"""Attention rollout: attention weights multiplied through the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import TargetType
from captum_attngrad.attr._core.base import AttentionAttribution
from captum_attngrad.attr._core.inputs import Inputs, like_inputs, number_of_examples
from captum_attngrad.attr._core.layer_calls import mean_over_heads
from captum_attngrad.attr._core.products import transposed_attention
from captum_attngrad.attr._core.selection import Heads, Query, checked_query, select
from captum_attngrad.attr.propagation._self_attention import (
    check_sequence,
    propagated,
)
from captum_attngrad.capture.calls import AttentionCall


class AttentionRollout(AttentionAttribution):
    r"""
    Attention rollout: how much of each input token is mixed into an output position
    if every layer passes on the average of its attention weights and of the residual
    connection,

    .. math::
        R = \tilde A^L \cdots \tilde A^1, \qquad
        \tilde A^l = (1 - \rho) \, \frac{1}{H} \sum_h A^{lh} + \rho I,

    with the residual share :math:`\rho`, 0.5 in the paper.

    The scores have no sign and are the same for every target: they say where a
    position looks, not how the output uses it. Rollout treats values and feed-forward
    layers as if they passed on everything equally, and with many layers it tends to
    give every query the same scores. Use :class:`AttentionRelevance` or
    :class:`IntegratedAttentionGradient` for an explanation of an output.

    The layers must be consecutive self-attention layers over one sequence: for an
    encoder-decoder model pass those of the encoder.

    Cost: one forward pass without autograd, and for each layer one product of a row
    with the attention weights, which on fused attention is the value gradient of one
    more fused call. No (queries x keys) tensor is built.

    S. Abnar and W. Zuidema, *Quantifying Attention Flow in Transformers* (2020).
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        residual: float = 0.5,
        heads: Heads = None,
    ) -> None:
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model, or any function
                        that runs it, as for :class:`AttentionGradient`.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The modules
                        whose attention is multiplied, in the order in which they run
                        (not that of the list).
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then
            device_ids (list[int], optional): Device ID list, necessary only if
                        forward_func applies a DataParallel model.
                        Default: None
            residual (float, optional): The share of the residual connection, from 0
                        (attention weights alone) to 1 (each token stays itself).
                        Default: 0.5
            heads (list[int] or Tensor, optional): The heads that are averaged:
                        indices, or a boolean mask, as for
                        :class:`AttentionGradient`. A layer of which no head is
                        chosen is left out.
                        Default: None, all heads
        """
        super().__init__(forward_func, layer, device_ids, heads=heads)
        given: Any = residual
        is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
        if not is_number or not 0 <= residual <= 1:
            raise ValueError(
                f"residual={residual!r:.80}: expected a share, a number from 0 to 1."
            )
        self._residual = residual

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        query: Query = None,
    ) -> Tensor | tuple[Tensor]:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input for which attributions are
                        computed, batch first, as for
                        :meth:`AttentionGradient.attribute`.
            target (optional): Not used; it is there so that all methods are alike:
                        attention weights are the same for every output.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of
                        forward_func, one argument or a tuple.
                        Default: None
            query (int or Tensor, optional): Which rows of the rollout are summed: an
                        index that holds for all examples (0 for a leading CLS token,
                        -1 for the last position), a tensor of integers, ``(batch,)``,
                        with one row for each example, or a boolean tensor,
                        ``(batch, queries)``, with the rows to sum.
                        Default: None, all rows. Those of padding tokens are among
                        them; pass the attention mask as ``query`` to leave them out.

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                        ``(batch, tokens)``, not negative: a share of 1 for each
                        chosen row, spread over the input tokens. If ``inputs`` is a
                        tuple, a tuple with this one tensor.

        Raises:
            ValueError: no attention in a layer; a layer without self-attention, or
                        layers over different sequences; a query or a head that is
                        out of range.
            RuntimeError: an attention dropout is active.

        Examples::

            >>> # Where the CLS token of the last layer has its content from, (N, L)
            >>> attributions = AttentionRollout(model).attribute(input_ids, query=0)
        """
        record = self.runner().record(inputs, additional_forward_args)
        check_sequence(record, "Rollout")
        heads = {layer.name: layer.heads for layer in self.layers_of(record)}
        query = checked_query(query, number_of_examples(inputs), masks=True)

        def through(rows: Tensor, call: AttentionCall) -> Tensor:
            attended = transposed_attention(call, rows[:, None, :, None]).squeeze(3)
            chosen = select(attended, heads[call.layer])
            if not chosen.shape[1]:
                return rows
            passed_on = mean_over_heads(chosen).to(rows.dtype)
            return torch.lerp(passed_on, rows, self._residual)

        return like_inputs(propagated(record, query, through), inputs)
