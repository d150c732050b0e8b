"""Attention gradient for sequence transduction: one explanation for each output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._base import AttentionGradientAttribution, Inputs
from captum_attngrad.attr._heads import Heads, grouped, heads_of_layers, select
from captum_attngrad.attr._output_attention import (
    Layers,
    influence_no_earlier_output,
    is_stepwise,
    output_attention,
    own_calls,
)
from captum_attngrad.attr._output_scores import (
    check_output,
    checked_targets,
    output_scores,
)
from captum_attngrad.attr._own_gradients import set_own_gradients
from captum_attngrad.attr._own_positions import OwnPositions, Switch
from captum_attngrad.attr._queries import check_keys, join
from captum_attngrad.attr._reductions import PairScores, zeros
from captum_attngrad.attr._running import uncompiled
from captum_attngrad.attr._target import LossFunction, output_tensor
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.recorder import AttentionRecord, Recorder


class SequenceAttentionGradient(AttentionGradientAttribution):
    r"""
    For each output token of a sequence-to-sequence model, the gradient of its own
    score with respect to the attention weights that it used itself: which source
    tokens speak for the output (positive), and which against it (negative).

    With the score :math:`s_t` of output t and the weights :math:`A_t` that it used -
    the t-th call of a recurrent decoder's attention, or row t of a transformer's
    cross-attention - the score of source token k is :math:`\sum_h \partial s_t /
    \partial A^h_{tk}`, over all chosen heads and layers. What *later* outputs make of
    :math:`A_t`, through the state of a recurrent decoder or the self-attention of a
    transformer, is no part of it. A backward pass of the sum of all scores would
    include it, and give a different answer.

    All outputs are explained with one forward pass. For transformers whose
    self-attention is causal (fused, or written out as matrix products) two backward
    passes are enough for any number of outputs: in them self-attention passes no
    gradient between positions, and the second one checks, numerically and for every
    row, that nothing else did. Otherwise several outputs go through as a batch of
    backward passes. For a recurrent decoder these visit only the steps of their own
    outputs, so that the cost grows with the number of outputs as that of the forward
    pass does.

    Which attention is explained: within ``layer``, or in the whole model, modules that
    attend with one query for each output, or that are called once for each output.
    Where some of them attend to the source (their number of keys is not the number of
    outputs) and others to the outputs before, attention to the source is explained
    alone. If source and outputs have the same length, causal attention is taken for
    that of outputs to outputs, and attention whose later rows change the first output
    for that of an encoder. Where a model has no attention to a source (a decoder-only
    model), keys are positions of the sequence itself.

    Based on S. Chakraborty, T. Le, P. Gurram and R. Tomsett, *Paying Attention to
    Attention for Explanation* (2020), and, for the alignments, on D. Bahdanau, K. Cho
    and Y. Bengio, *Neural Machine Translation by Jointly Learning to Align and
    Translate* (ICLR 2015).

    When not to use it: for one score for a whole sequence, :class:`AttentionGradient`
    needs one backward pass. In a recurrent decoder the source also reaches output t
    through the attention of earlier steps and the initial state; row t says nothing
    of these. In a deep encoder the states that are attended to are not the tokens at
    their places alone. Use it on models in ``eval()`` mode.
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
        ignore_index: int = -100,
    ) -> None:
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model under teacher forcing,
                        or any function that runs it: returns ``(batch, outputs,
                        classes)``, with one row for each position of the decoder. Of
                        an output object, as Hugging Face models return it, ``.logits``
                        is explained.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The modules
                        whose attention is explained; they may contain it at any depth.
                        Several layers must have the same keys; their scores are added.
                        Default: None, every layer of ``forward_func`` that attends
                        from outputs to the source (see above); it must be a Module
            device_ids (list[int], optional): Device ID list, necessary only if
                        forward_func applies a DataParallel model.
                        Default: None
            multiply_by_attention (bool, optional): Multiply the gradient by the
                        attention weights, :math:`A \odot G`.
                        Default: False
            center (bool, optional): Take the attention-weighted mean of its row off
                        the gradient, as in :class:`AttentionGradient`. With
                        ``multiply_by_attention`` this is the gradient with respect to
                        the scores before the softmax, and a row sums to 0.
                        Default: False
            positive_only (bool, optional): Set the negative scores of single heads to
                        0 before they are summed.
                        Default: False
            heads (list[int] or Tensor, optional): The heads that count: indices, or a
                        boolean mask ``(heads,)`` or ``(layers, heads)``, with the
                        layers that are explained in their order.
                        Default: None, all heads
            loss_func (Callable, optional): ``loss_func(output, target)``, as
                        ``torch.nn.functional.cross_entropy``. Called with the rows of
                        all outputs that are explained, ``(rows, classes)`` and
                        ``(rows,)``; returns one number for each row, or one for all,
                        which is then computed row by row. If given, minus the loss is
                        explained in place of ``output[target]``.
                        Default: None
            ignore_index (int, optional): Outputs with this target are not explained
                        (padding); their rows are 0.
                        Default: -100
        """
        super().__init__(
            forward_func, layer, device_ids, heads=heads, loss_func=loss_func
        )
        self._scores = PairScores(multiply_by_attention, center, positive_only)
        self._ignore_index = ignore_index

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the gradient is multiplied by the attention weights."""
        return self._scores.multiply

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        targets: Tensor,
        additional_forward_args: object | None = None,
        *,
        internal_batch_size: int | None = None,
    ) -> Tensor | tuple[Tensor]:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input of forward_func, batch first:
                        the source (token ids or embeddings), and, as the further
                        tensors of a tuple or in ``additional_forward_args``, what the
                        decoder is fed with.
            targets (Tensor): Token ids ``(batch, outputs)``: the output of each
                        position that is explained. ``ignore_index`` for those that
                        are not.
            additional_forward_args (Any, optional): Further arguments of
                        forward_func, one argument or a tuple.
                        Default: None
            internal_batch_size (int, optional): At most so many rows (examples x
                        outputs) in one batch of backward passes, where batches are
                        needed; at least one output goes through at once. Bounds
                        memory; the result is the same.
                        Default: None, chosen by size

        Returns:
            *Tensor* or *tuple[Tensor]* of **attributions**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                        ``(batch, outputs, keys)``, in units of the score per unit of
                        attention (with ``multiply_by_attention``: in units of the
                        score). Keys that may not be attended to, and the rows of
                        ignored outputs, are exactly 0. float32 for models in half
                        precision. If ``inputs`` is a tuple, a tuple with this one
                        tensor.

        Raises:
            ValueError: an output that is not ``(batch, outputs, classes)``; targets of
                        another shape, or out of range; no attention with one row for
                        each output; layers with different keys; heads out of range.
            RuntimeError: the outputs do not depend on the attention weights; an
                        attention dropout is active.

        Examples::

            >>> # A decoder that is fed with the tokens before: (N, S), (N, T) in,
            >>> # logits (N, T, V) out.
            >>> method = SequenceAttentionGradient(model)
            >>> fed = torch.cat([start, translation[:, :-1]], dim=1)
            >>> # Which source tokens made which output token? (N, T, S)
            >>> attributions = method.attribute(source, translation, fed)
            >>> # Hugging Face: input_ids, attention_mask, decoder_input_ids.
            >>> method = SequenceAttentionGradient(t5)
            >>> attributions = method.attribute(ids, labels, (mask, fed))
        """
        targets = checked_targets(targets, _examples(inputs))
        layers, kept = self._explained_calls(
            inputs, targets, additional_forward_args, internal_batch_size
        )
        heads = heads_of_layers(self._heads, layers)
        total: Tensor | None = None
        for name, parts in layers:
            scores = join([self._of_calls(calls, heads[name], kept) for calls in parts])
            total = scores if total is None else total + scores.to(total.device)
        assert total is not None
        total = total.masked_fill(~kept.to(total.device).unsqueeze(-1), 0)
        return (total,) if isinstance(inputs, tuple) else total

    def _of_calls(
        self, calls: list[AttentionCall], heads: Tensor | None, kept: Tensor
    ) -> Tensor:
        """Scores of one module, ``(batch, outputs, keys)``."""
        outputs = kept.shape[1]
        scores = [
            select(self._scores.of_pairs(call), heads).sum(dim=1)
            if call.on_path
            else zeros(call, call.query_length, call.key_length)
            for call in calls
        ]
        if is_stepwise(calls, outputs):
            return torch.cat(scores, dim=1)
        return torch.stack(scores).sum(dim=0)

    def _explained_calls(
        self,
        inputs: Inputs,
        targets: Tensor,
        additional_forward_args: object | None,
        internal_batch_size: int | None,
    ) -> tuple[Layers, Tensor]:
        """The calls that are explained, with the gradient of each output in its row,
        and which outputs are not ignored."""
        with self._running(inputs, additional_forward_args) as (modules, arguments):
            switch = Switch()
            outputs = targets.shape[1]
            recorder, output = self._forward(modules, arguments, switch, outputs)
            targets = targets.to(output.device)
            check_output(output, targets, self._ignore_index)
            kept = targets != self._ignore_index
            scores = output_scores(output, targets, kept, self._loss_func)
            record = self._finished(recorder, modules, arguments)
            layers = output_attention(
                grouped(record),
                outputs,
                self.layer is not None,
                partial(influence_no_earlier_output, output),
            )
            self._check_chosen(record, layers, modules, outputs)
            check_keys(layers)
            calls = own_calls(layers, outputs)
            if not scores.requires_grad or not calls:
                raise RuntimeError(_LOST.format(_names(layers)))
            set_own_gradients(
                scores,
                kept,
                calls,
                switch,
                output.numel(),
                _outputs_per_pass(internal_batch_size, len(targets)),
            )
        if not any(own.call.on_path for own in calls):
            raise RuntimeError(_LOST.format(_names(layers)))
        return layers, kept

    def _forward(
        self,
        modules: list[Module],
        arguments: tuple[Any, ...],
        switch: Switch,
        outputs: int,
    ) -> tuple[Recorder, Tensor]:
        def forward(lazy: bool) -> tuple[Recorder, Tensor]:
            recorder = self._recorder(modules, arguments, lazy=lazy)
            with (
                torch.set_grad_enabled(not lazy),
                OwnPositions(switch, outputs),
                recorder,
            ):
                output = uncompiled(self.forward_func)(*arguments)
            return recorder, output_tensor(output)

        recorder, output = forward(lazy=True)
        if not output.requires_grad or len(recorder.threads) > 1:
            # The graph was lost on the way: build it from the first operation on.
            recorder, output = forward(lazy=False)
        return recorder, output

    def _check_chosen(
        self,
        record: AttentionRecord,
        layers: Layers,
        modules: list[Module],
        outputs: int,
    ) -> None:
        """Each of the layers that the user has named has a part in it."""
        chosen = {
            scope for _, parts in layers for call in parts[0] for scope in call.scopes
        }
        for i, module in enumerate(modules):
            if i not in chosen:
                sizes = {
                    f"{call.query_length} x {call.key_length}"
                    for call in record
                    if i in call.scopes
                }
                raise ValueError(
                    f"The attention of layer {type(module).__name__} (queries x keys: "
                    f"{', '.join(sorted(sizes))}) does not go from the {outputs} "
                    f"outputs to the source, as that of {_names(layers)} does. Explain "
                    "them one at a time."
                )


_LOST = (
    "The outputs do not depend on the attention weights of {}: they are not on the "
    "path to the output. Was something detached, or the forward pass run without "
    "gradients (torch.no_grad, an inference-only kernel)?"
)


def _examples(inputs: Inputs) -> int:
    return len(inputs[0] if isinstance(inputs, tuple) else inputs)


def _names(layers: Layers) -> str:
    return ", ".join(repr(name) for name, _ in layers)


def _outputs_per_pass(internal_batch_size: int | None, examples: int) -> int | None:
    if internal_batch_size is None:
        return None
    if internal_batch_size < 1:
        raise ValueError(
            f"internal_batch_size must be at least 1, got {internal_batch_size}."
        )
    return max(1, internal_batch_size // max(1, examples))
