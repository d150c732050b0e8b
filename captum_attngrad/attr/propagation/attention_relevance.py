"""Attention relevance: weights times gradients, multiplied through the layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import TargetType
from captum_attngrad.attr._core.base import AttentionGradientAttribution
from captum_attngrad.attr._core.inputs import Inputs, like_inputs, number_of_examples
from captum_attngrad.attr._core.layer_calls import join, with_queries
from captum_attngrad.attr._core.run import Runner
from captum_attngrad.attr._core.selection import Heads, Query, checked_query
from captum_attngrad.attr._core.target import LossFunction
from captum_attngrad.attr.propagation._self_attention import (
    check_sequence,
    propagated,
    row_vector,
)
from captum_attngrad.attr.propagation._update_rules import (
    MeanRelevance,
    Step,
    relevance_of_two,
)
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.record import AttentionRecord

_Layers = Module | list[Module] | None


_AMBIGUOUS = (
    "With equal lengths its direction is unknown: pass a separate module for each "
    "direction."
)
_UNFIT = (
    "That does not fit what it was passed as: layer (the explained sequence attends to "
    "itself), context_layer (the context to itself), cross_layer (the first to the "
    "second) or cross_back_layer (the second to the first)."
)


class AttentionRelevance(AttentionGradientAttribution):
    r"""
    Attention relevance (Chefer et al.): attention weights times their gradients,
    followed through the layers like attention rollout. With

    .. math::
        \bar A^l = \frac{1}{H} \sum_h (G^{lh} \odot A^{lh})^+ , \qquad
        R \leftarrow R + \bar A^l R

    from :math:`R = I` on, a row of R says how relevant each input token is to that
    position for the explained output. Unlike rollout it is specific to the target.

    As published, it has no sign: the clamp :math:`(\cdot)^+` discards what opposes the
    output. ``signed=True`` keeps it. The identity counts each position as relevant to
    itself, so that the score of the explained position itself (CLS) is at least 1 and
    cannot be compared with the others.

    For encoder-decoder models and for co-attention pass ``cross_layer`` (and
    ``context_layer``): the relevance of both sequences is followed with the rules of
    the paper for two modalities.

    Cost: one forward and one backward pass, and each layer's attention once more in
    blocks of queries: time grows with queries x keys, memory does not. ``signed=True``
    takes another fused call instead of the blocks. With ``cross_layer``, matrices of
    (tokens x tokens) are kept, one for all heads and layers.

    H. Chefer, S. Gur and L. Wolf, *Generic Attention-model Explainability for
    Interpreting Bi-Modal and Encoder-Decoder Transformers* (2021).
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: _Layers = None,
        device_ids: list[int] | None = None,
        *,
        cross_layer: _Layers = None,
        context_layer: _Layers = None,
        cross_back_layer: _Layers = None,
        signed: bool = False,
        heads: Heads = None,
        loss_func: LossFunction | None = None,
    ) -> None:
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model, or any function
                        that runs it, as for :class:`AttentionGradient`.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The
                        self-attention layers of the explained sequence (in an
                        encoder-decoder model, the decoder). They count in the order
                        in which they run.
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then, that none of the following
                        contains
            device_ids (list[int], optional): Device ID list, necessary only if
                        forward_func applies a DataParallel model.
                        Default: None
            cross_layer (torch.nn.Module or list of torch.nn.Module, optional): Where
                        the explained sequence attends to another one, the context
                        (encoder-decoder attention).
                        Default: None, there is one sequence
            context_layer (torch.nn.Module or list of torch.nn.Module, optional): The
                        self-attention layers of the context (the encoder).
                        Default: None
            cross_back_layer (torch.nn.Module or list of torch.nn.Module, optional):
                        Where the context attends to the explained sequence, in models
                        with co-attention. Cross attention in both directions without
                        self-attention in between counts as simultaneous. One module
                        may do both, if the lengths tell them apart.
                        Default: None
            signed (bool, optional): Keep negative entries of :math:`G \odot A`.
                        Positive scores then support the output and negative ones
                        oppose it; each factor of the product through the layers has
                        its sign, so that two negative ones make a positive.
                        Default: False
            heads (list[int] or Tensor, optional): The heads that are averaged:
                        indices, or a boolean mask, as for
                        :class:`AttentionGradient`. A layer of which no head is chosen
                        is left out.
                        Default: None, all heads
            loss_func (Callable, optional): Explain minus this loss, as for
                        :class:`AttentionGradient`.
                        Default: None
        """
        super().__init__(
            forward_func, layer, device_ids, heads=heads, loss_func=loss_func
        )
        if cross_layer is None and not (
            context_layer is None and cross_back_layer is None
        ):
            raise ValueError(
                "context_layer and cross_back_layer are for a second sequence: pass "
                "cross_layer too, the layers in which the first attends to it."
            )
        self._roles = [
            *((1, 1, module) for module in _as_list(context_layer)),
            *((0, 1, module) for module in _as_list(cross_layer)),
            *((1, 0, module) for module in _as_list(cross_back_layer)),
        ]
        self._signed = signed

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        query: Query = None,
    ) -> Tensor | tuple[Tensor, ...]:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input for which attributions are
                        computed, batch first, as for
                        :meth:`AttentionGradient.attribute`.
            target (int, tuple, Tensor, or list, optional): Output index, as for
                        :meth:`AttentionGradient.attribute`.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of
                        forward_func, one argument or a tuple.
                        Default: None
            query (int or Tensor, optional): Which rows of R are summed: an index that
                        holds for all examples (0 for a leading CLS token, as in the
                        paper; in a decoder the position that is explained, -1 for the
                        last), a tensor of integers, ``(batch,)``, with one row for
                        each example, or a boolean tensor, ``(batch, queries)``, with
                        the rows to sum.
                        Default: None, all rows. Each then counts 1 for itself, which
                        is a constant; those of padding tokens are among them.

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                        ``(batch, tokens)``, without unit. If ``inputs`` is a tuple, a
                        tuple with this one tensor. With ``cross_layer`` always a tuple
                        of two: the tokens of the explained sequence, ``(batch,
                        tokens)``, and those of the context, ``(batch, context
                        tokens)``.

        Raises:
            ValueError: no attention in a layer; a layer whose queries and keys are not
                        those of the sequences; a target that is missing or out of
                        range; a query or a head that is out of range.
            RuntimeError: the output does not depend on the attention weights; an
                        attention dropout is active.

        Examples::

            >>> # For an encoder with a CLS token, (N, L)
            >>> relevance = AttentionRelevance(model)
            >>> attributions = relevance.attribute(input_ids, target=1, query=0)
            >>> # For nn.Transformer: what the last output position looks at
            >>> decoder = model.decoder.layers
            >>> relevance = AttentionRelevance(
            ...     model,
            ...     [block.self_attn for block in decoder],
            ...     cross_layer=[block.multihead_attn for block in decoder],
            ...     context_layer=model.encoder,
            ... )
            >>> of_target, of_source = relevance.attribute((source, target), query=-1)
        """
        run = self.runner().run(
            inputs, target, additional_forward_args, graph=True, value_gradients=False
        )
        layers = self.layers_of(run.record)
        heads = {layer.name: layer.heads for layer in layers}
        relevance = MeanRelevance(self._signed, heads)
        query = checked_query(query, number_of_examples(inputs), masks=True)
        if self._roles:
            return self._of_two_sequences(run.record, relevance, query)
        check_sequence(run.record, "Relevance")

        def through(rows: Tensor, call: AttentionCall) -> Tensor:
            return rows + relevance.row_times(rows, call).to(rows.dtype)

        return like_inputs(propagated(run.record, query, through), inputs)

    def _layers(self) -> list[Module]:
        return [*super()._layers(), *(module for _, _, module in self._roles)]

    def runner(self, **options: Any) -> Runner:
        if self._roles:
            # With two sequences the last layers of one of them often have no effect.
            options = {"needs_every_layer": False, **options}
        return super().runner(**options)

    def _of_two_sequences(
        self, record: AttentionRecord, relevance: MeanRelevance, query: Query
    ) -> tuple[Tensor, Tensor]:
        own, context = [], []
        for calls, chosen in with_queries(record.replicas, query):
            steps = self._steps(calls)
            of_own, of_context = relevance_of_two(steps, relevance)
            call = next((s.call for s in steps if s.queries == 0), calls[0])
            rows = row_vector(call, chosen).unsqueeze(1)
            own.append((rows @ of_own).squeeze(1))
            context.append((rows @ of_context).squeeze(1))
        return join(own), join(context)

    def _steps(self, calls: list[AttentionCall]) -> list[Step]:
        """Which sequence attends to which in each call."""
        first = len(super()._layers())
        listed = []
        for call in calls:
            roles = {self._roles[i - first][:2] for i in call.scopes if i >= first}
            cross = roles & {(0, 1), (1, 0)}
            # Inside a layer that was chosen for the whole, the narrower choice counts.
            listed.append((call, cross or roles or {(0, 0)}))
        lengths = _lengths(listed)
        steps = []
        for call, roles in listed:
            shape = (call.query_length, call.key_length)
            fitting = [r for r in roles if shape == (lengths[r[0]], lengths[r[1]])]
            if len(fitting) != 1:
                raise ValueError(
                    f"Layer {call.layer!r} attends from {shape[0]} queries to "
                    f"{shape[1]} keys; the explained sequence has {lengths[0]} tokens, "
                    f"the context {lengths[1]}. {_AMBIGUOUS if fitting else _UNFIT}"
                )
            steps.append(Step(call, *fitting[0]))
        return steps


def _lengths(
    listed: list[tuple[AttentionCall, set[tuple[int, int]]]],
) -> tuple[int, int]:
    """The lengths of both sequences, from the first call that is sure to cross."""
    for call, roles in listed:
        if roles == {(0, 1)}:
            return call.query_length, call.key_length
        if roles == {(1, 0)}:
            return call.key_length, call.query_length
    own = next((call.key_length for call, r in listed if r == {(0, 0)}), 0)
    context = next((call.key_length for call, r in listed if r == {(1, 1)}), 0)
    return own, context


def _as_list(layers: _Layers) -> list[Module]:
    if layers is None:
        return []
    return [layers] if isinstance(layers, Module) else list(layers)
