"""Attention gradient: one signed score per token."""

from __future__ import annotations

from captum.log import log_usage
from torch import Tensor

from captum_attngrad._captum import TargetType
from captum_attngrad.attr._core.base import PairScoresAttribution
from captum_attngrad.attr._core.inputs import Inputs, like_inputs, number_of_examples
from captum_attngrad.attr._core.layer_calls import check_same_keys, total_over_layers
from captum_attngrad.attr._core.selection import Query, checked_query


class AttentionGradient(PairScoresAttribution):
    r"""
    The gradient of the model's output with respect to its attention weights, as one
    signed score for each token: positive tokens support the explained output,
    negative ones (inhibitors) oppose it.

    With attention weights :math:`A` and a score :math:`s` (the output for the target,
    or minus the loss), the gradient of head h is :math:`G^h = \partial s / \partial
    A^h`, and the score of key k is :math:`\sum_h \sum_q G^h_{qk}`, over the queries
    that may attend to it and over all chosen layers.

    The gradient is exact whatever kernel the model uses. Fused attention
    (``scaled_dot_product_attention``, ``nn.MultiheadAttention``) stays fused: since
    the weights reach the output only through :math:`O = A v`, the gradient follows
    from :math:`G = \partial s / \partial O \, v^T`, and its sum over the queries is
    taken without building a (queries x keys) tensor. Cost: one forward and one
    backward pass, which ends at the first chosen layer.

    Based on S. Chakraborty, T. Le, P. Gurram and R. Tomsett, *Paying Attention to
    Attention for Explanation* (2020).

    Several layers must have the same keys; their scores are added.

    Use it on models in ``eval()`` mode. Do not read the raw gradient as "what happens
    if the token is left out": it is the effect of *more attention* to the token.
    ``multiply_by_attention=True`` weights it by the attention that is there.
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
                        computed: token ids or embeddings, batch first. Several
                        tensors are passed to forward_func in order.
            target (int, tuple, Tensor, or list, optional): Output index for which
                        the gradient is computed, in every form that Captum takes:
                        an integer (or a tensor with one) for all examples, a list or
                        1D tensor with one integer for each example; for outputs with
                        more than two dimensions a tuple, or a list of tuples. With
                        ``loss_func``, what it takes as its second argument.
                        Default: None (the output has one number for each example)
            additional_forward_args (Any, optional): Further arguments of
                        forward_func (an attention mask, for example), one argument
                        or a tuple.
                        Default: None
            query (int or Tensor, optional): Explain one query row instead of the sum
                        over all: an index for all examples (0 for a leading CLS token,
                        -1 for the last position), or a tensor of integers,
                        ``(batch,)``, with one row for each example. If a layer is
                        called several times in one forward pass, its rows are numbered
                        through all calls (in ALBERT, whose layers share one module, 0
                        is a row of the first layer).
                        Default: None

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                        ``(batch, keys)``, in units of the score per unit of
                        attention (with ``multiply_by_attention``: in units of the
                        score). Keys that may not be attended to, such as padding,
                        are exactly 0. float32 for models in half precision.
                        With ``add_bias_kv`` or ``add_zero_attn`` the additional keys
                        come last. If ``inputs`` is a tuple, a tuple with this one
                        tensor, as Captum's metrics expect it.

        Raises:
            ValueError: no attention in a layer; layers with different keys; a target
                        that is missing or out of range; a query or a head that is
                        out of range.
            RuntimeError: the output does not depend on the attention weights; an
                        attention dropout is active.

        Examples::

            >>> # Token ids (N, L) in, logits (N, 2) out.
            >>> attention_gradient = AttentionGradient(model)
            >>> # Which words speak for class 1, which against it? (N, L)
            >>> attributions = attention_gradient.attribute(input_ids, target=1)
        """
        run = self.runner().run(
            inputs,
            target,
            additional_forward_args,
            graph=True,
            value_gradients=self.pair_scores.uses_value_gradients and query is None,
        )
        layers = self.layers_of(run.record)
        check_same_keys(layers)
        query = checked_query(query, number_of_examples(inputs))
        total = total_over_layers(layers, self.pair_scores.of_keys, query)
        return like_inputs(total, inputs)
