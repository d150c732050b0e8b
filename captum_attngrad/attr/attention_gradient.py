"""Attention gradient: one signed score per token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import TargetType
from captum_attngrad.attr._core.base import PairScoresAttribution
from captum_attngrad.attr._core.heads import Heads
from captum_attngrad.attr._core.inputs import Inputs, like_inputs, number_of_examples
from captum_attngrad.attr._core.layer_calls import check_same_keys, total_over_layers
from captum_attngrad.attr._core.queries import Query, checked_query
from captum_attngrad.attr._core.target import LossFunction


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

    Use it on models in ``eval()`` mode. Do not read the raw gradient as "what happens
    if the token is left out": it is the effect of *more attention* to the token.
    ``multiply_by_attention=True`` weighs it with the attention that is there.
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
                        that runs it. Hugging Face models may be passed as they are:
                        of an output object, ``.logits`` is explained.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The modules
                        whose attention is explained. They may contain the attention
                        at any depth. :func:`find_attention_layers` lists what there
                        is. Several layers must have the same keys; their scores are
                        added.
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then
            device_ids (list[int], optional): Device ID list, necessary only if
                        forward_func applies a DataParallel model. If forward_func is
                        given as the DataParallel model itself, then it is not
                        necessary to provide this argument.
                        Default: None
            multiply_by_attention (bool, optional): Multiply the gradient by the
                        attention weights, :math:`A \odot G`.
                        Default: False
            center (bool, optional): Take the attention-weighted mean of its row off
                        the gradient, :math:`G_{qk} - \sum_j A_{qj} G_{qj}`. The
                        weights of a row sum to one, so a constant added to a row of
                        the gradient means nothing; the centred gradient is free of
                        it, and does not change when a constant moves between the
                        values and the output bias. With ``multiply_by_attention``
                        this is the gradient with respect to the scores before the
                        softmax.
                        Default: False
            positive_only (bool, optional): Set the negative scores of single
                        (query, key) pairs to 0 before they are summed, as Grad-SAM
                        (Barkan et al. 2021) does with ``multiply_by_attention``.
                        What speaks against the output is lost, and the sum over the
                        queries has no closed form any more: it is taken in blocks of
                        queries, in bounded memory and in time that grows with
                        queries x keys.
                        Default: False
            heads (list[int] or Tensor, optional): The heads that count: indices, for
                        every layer alike, or a boolean mask, ``(heads,)`` or
                        ``(layers, heads)``, with the layers in the order of
                        ``layer`` (within one module, as they run).
                        Default: None, all heads
            loss_func (Callable, optional): ``loss_func(output, target)``, one number
                        or one number for each example, as
                        ``torch.nn.functional.cross_entropy``. If given, minus the
                        loss is explained in place of ``output[target]``. A loss
                        reduced to one number is computed for each example by itself.
                        Default: None
        """
        super().__init__(
            forward_func,
            layer,
            device_ids,
            multiply_by_attention=multiply_by_attention,
            center=center,
            positive_only=positive_only,
            heads=heads,
            loss_func=loss_func,
        )

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
            query (int or Tensor, optional): Explain one query row in place of the
                        sum over all: an index that holds for all examples (0 for a
                        leading CLS token, -1 for the last position), or a tensor of
                        integers, ``(batch,)``, with one row for each example. Where
                        a layer is called several times in one forward pass, the
                        rows of its calls are counted on (with layers that share
                        one module, as in ALBERT, 0 is a row of the first of them).
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
        run = self._runner().run(
            inputs,
            target,
            additional_forward_args,
            graph=True,
            value_gradients=self._scores.uses_value_gradients and query is None,
        )
        layers = self._layer_calls(run.record)
        check_same_keys(layers)
        query = checked_query(query, number_of_examples(inputs))
        total = total_over_layers(layers, self._scores.of_keys, query)
        return like_inputs(total, inputs)
