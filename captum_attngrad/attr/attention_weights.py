"""The attention weights themselves, as a baseline."""

from __future__ import annotations

from captum.log import log_usage
from torch import Tensor

from captum_attngrad._captum import TargetType
from captum_attngrad.attr._core.base import AttentionAttribution
from captum_attngrad.attr._core.inputs import Inputs, like_inputs, number_of_examples
from captum_attngrad.attr._core.layer_calls import (
    check_same_keys,
    mean_over_heads,
    total_over_layers,
)
from captum_attngrad.attr._core.products import transposed_attention
from captum_attngrad.attr._core.reductions import zeros
from captum_attngrad.attr._core.selection import Query, checked_query
from captum_attngrad.capture.calls import AttentionCall


class AttentionWeights(AttentionAttribution):
    r"""
    The attention that each token receives: the weights, summed over the queries (or
    those of one query row), averaged over the heads of a layer and added over the
    layers, :math:`\sum_l \frac{1}{H} \sum_h \sum_q A^{lh}_{qk}`.

    This is the usual baseline, and not an explanation of the output: it has no sign, is
    the same for every target, and a token may receive attention without any effect.
    For the effect of attention on an output, use :class:`AttentionGradient`
    or :class:`IntegratedAttentionGradient`.

    Cost: one forward pass without autograd. On fused attention the sum over the
    queries, :math:`A^T 1`, is the value gradient of one more fused call, so that no
    (queries x keys) tensor is built.

    On when attention weights explain and when not: S. Jain and B. C. Wallace,
    *Attention is not Explanation* (2019); S. Wiegreffe and Y. Pinter, *Attention is
    not not Explanation* (2019).
    """

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
            query (int or Tensor, optional): Which query rows are summed: an index
                        that holds for all examples (0 for a leading CLS token, -1
                        for the last position), a tensor of integers, ``(batch,)``,
                        with one row for each example, or a boolean tensor,
                        ``(batch, queries)``, with the rows to sum.
                        Default: None, all rows. Those of padding tokens are among
                        them, so that the scores of a text depend on how far it is
                        padded; pass the attention mask as ``query`` to leave them
                        out.

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                        ``(batch, keys)``, not negative, in units of attention: over
                        the keys they sum to the number of query rows times the
                        number of layers. Keys that may not be attended to are
                        exactly 0. If ``inputs`` is a tuple, a tuple with this one
                        tensor.

        Raises:
            ValueError: no attention in a layer; layers with different keys; a query or
                        a head that is out of range.
            RuntimeError: an attention dropout is active.

        Examples::

            >>> # What the CLS token attends to in the last layer, (N, L)
            >>> weights = AttentionWeights(model, model.encoder.layers[-1])
            >>> attributions = weights.attribute(input_ids, query=0)
        """
        record = self.runner().record(inputs, additional_forward_args)
        layers = self.layers_of(record)
        check_same_keys(layers)
        query = checked_query(query, number_of_examples(inputs), masks=True)
        total = total_over_layers(layers, _attention_received, query, mean_over_heads)
        return like_inputs(total, inputs)


def _attention_received(call: AttentionCall, rows: Tensor | None) -> Tensor:
    """The weights in some rows of one call, ``(batch, heads, keys)``."""
    if rows is not None and rows.dim() == 1:
        return call.weights(rows).squeeze(2)
    counted = zeros(call, 1, call.query_length, 1)
    counted += 1 if rows is None else rows[:, None, :, None]
    return transposed_attention(call, counted).squeeze(3)
