"""Attention gradient for sequence transduction: one explanation for each output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import formatted_arguments, formatted_inputs
from captum_attngrad.attr._core.base import PairScoresAttribution
from captum_attngrad.attr._core.environment import uncompiled
from captum_attngrad.attr._core.inputs import Inputs, like_inputs, number_of_examples
from captum_attngrad.attr._core.layer_calls import (
    LayerCalls,
    add,
    sum_over_heads,
    with_heads,
)
from captum_attngrad.attr._core.selection import Heads
from captum_attngrad.attr._core.target import LossFunction
from captum_attngrad.attr._core.whole_numbers import checked_batch_size, whole_number
from captum_attngrad.attr.sequence._explained_calls import explained_calls
from captum_attngrad.attr.sequence._generation import (
    GeneratedExplanation,
    checked_ids,
    each_prefix,
    greedy,
    output_lengths,
    special_token,
)
from captum_attngrad.attr.sequence._output_scores import checked_targets
from captum_attngrad.attr.sequence._source_attention import is_stepwise


class SequenceAttentionGradient(PairScoresAttribution):
    r"""
    For each output token of a sequence-to-sequence model, the gradient of its own
    score with respect to the attention weights that it used itself: which source
    tokens support the output (positive), and which oppose it (negative).

    With the score :math:`s_t` of output t and the weights :math:`A_t` that it used -
    the t-th call of a recurrent decoder's attention, or row t of a transformer's
    cross-attention - the score of source token k is :math:`\sum_h \partial s_t /
    \partial A^h_{tk}`, over all chosen heads and layers. It leaves out what *later*
    outputs make of :math:`A_t`, through the state of a recurrent decoder or the
    self-attention of a transformer. A backward pass of the sum of all scores would
    include it, and give a different answer.

    All outputs are explained with one forward pass. For transformers whose
    self-attention is causal (fused, or written out as matrix products) two backward
    passes are enough for any number of outputs. In these passes self-attention sends no
    gradient between positions, and the second one checks, numerically and for every
    row, that nothing else did. For a recurrent decoder that joins its outputs from one
    tensor per step (``stack``, ``cat``, or by index) each step is visited once, which
    costs as much as one backward pass, after two passes that check that nothing
    bypasses these tensors. Any other model takes one batch of backward passes for every
    few outputs, which costs as much as one backward pass per output. The numbers are
    the same in all three cases.

    Which attention is explained: within ``layer``, or in the whole model, modules that
    attend with one query for each output, or that are called once for each output.
    Where some of them attend to the source (their number of keys is not the number of
    outputs) and others to previous outputs, only attention to the source is explained.
    If source and outputs have the same length, causal attention is taken to go from
    outputs to outputs, and attention whose later rows change the first output is taken
    to be an encoder's. Where a model has no attention to a source (a decoder-only
    model), keys are positions of the sequence itself.

    Based on S. Chakraborty, T. Le, P. Gurram and R. Tomsett, *Paying Attention to
    Attention for Explanation* (2020), and, for the alignments, on D. Bahdanau, K. Cho
    and Y. Bengio, *Neural Machine Translation by Jointly Learning to Align and
    Translate* (ICLR 2015).

    When not to use it: for one score for a whole sequence, :class:`AttentionGradient`
    needs one backward pass. In a recurrent decoder the source also reaches output t
    through the attention of earlier steps and the initial state; row t says nothing
    about these. In a deep encoder, each state that is attended to has already mixed
    several tokens. Use it on models in ``eval()`` mode.
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
            center (bool, optional): Subtract the attention-weighted mean of its row
                        from the gradient, as in :class:`AttentionGradient`. With
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
            forward_func,
            layer,
            device_ids,
            multiply_by_attention=multiply_by_attention,
            center=center,
            positive_only=positive_only,
            heads=heads,
            loss_func=loss_func,
        )
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
            raise ValueError(
                f"ignore_index={ignore_index!r:.80}: expected an integer, the target of"
                " outputs that are not explained (a number that is not a token id)."
            )
        self._ignore_index = ignore_index

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
            internal_batch_size (int, optional): The largest number of rows (examples
                        x outputs) in one batch of backward passes, where batches are
                        needed; a batch holds at least one output. It bounds memory;
                        the result is the same.
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
        runner = self.runner()
        layers, kept = explained_calls(
            runner,
            inputs,
            checked_targets(targets, number_of_examples(inputs)),
            additional_forward_args,
            self._ignore_index,
            0 if self.layer is None else len(runner.layers),
            checked_batch_size(internal_batch_size),
        )
        outputs = kept.shape[1]
        total = add(
            self._of_layer(layer, outputs) for layer in with_heads(layers, self._heads)
        )
        total = total.masked_fill(~kept.to(total.device).unsqueeze(-1), 0)
        return like_inputs(total, inputs)

    def explain_generated(
        self,
        inputs: Inputs,
        generated: Tensor | None = None,
        additional_forward_args: object | None = None,
        *,
        start: int | None = None,
        end: int | None = None,
        max_outputs: int = 50,
        step_by_step: bool = False,
        internal_batch_size: int | None = None,
    ) -> GeneratedExplanation:
        r"""
        Explain what the model itself produces: greedy decoding, or token ids that it
        has generated.

        The model is run as ``forward_func(*inputs, fed, *additional_forward_args)``,
        where ``fed``, ``(batch, outputs)``, is the start token and the generated tokens
        but the last. This is the order of Hugging Face's encoder-decoder models when
        ``inputs`` is ``(input_ids, attention_mask)``.

        Args:

            inputs (Tensor or tuple[Tensor, ...]): The source: all that forward_func
                        takes before the tokens that the decoder is fed with.
            generated (Tensor, optional): What ``model.generate(..., do_sample=False)``
                        returned: ids ``(batch, 1 + outputs)``, the start token first.
                        Default: None, greedy decoding with forward_func, one forward
                        pass for each token
            additional_forward_args (Any, optional): What forward_func takes after the
                        decoder's tokens.
                        Default: None
            start (int, optional): Id of the start token, for greedy decoding.
                        Default: None, a Hugging Face model's
                        ``decoder_start_token_id``
            end (int, optional): Id of the token that ends an output. It is explained,
                        what comes after it is not.
                        Default: None, a Hugging Face model's ``eos_token_id``; for
                        other models outputs have no end
            max_outputs (int, optional): The largest number of tokens in greedy
                        decoding.
                        Default: 50
            step_by_step (bool, optional): Explain each output in a separate pass over
                        the tokens before it, as in generation, instead of in one
                        teacher-forced pass. The numbers are the same if the decoder is
                        causal, as it must be; the cost is that of a loop.
                        Default: False
            internal_batch_size (int, optional): as for :meth:`attribute`.
                        Default: None

        Returns:
            *GeneratedExplanation*: ``token_ids`` ``(batch, outputs)``, ``lengths``
            ``(batch,)`` and ``attributions`` ``(batch, outputs, keys)``, in which rows
            after the end of an output are 0.

        Raises:
            ValueError: ids of another form; no start token; and all that
                        :meth:`attribute` raises.

        Examples::

            >>> # A decoder written by hand, forward(source, fed) -> (N, T, V).
            >>> method = SequenceAttentionGradient(model)
            >>> explained = method.explain_generated(source, start=1, end=2)
            >>> explained.attributions[0, : explained.lengths[0]]  # (outputs, keys)
            >>> # Hugging Face, with its own generation.
            >>> ids = t5.generate(input_ids, attention_mask=mask, do_sample=False)
            >>> method = SequenceAttentionGradient(t5)
            >>> explained = method.explain_generated((input_ids, mask), ids)
        """
        model, runner = uncompiled(self.forward_func), self.runner()
        sources = formatted_inputs(inputs)
        further = formatted_arguments(additional_forward_args)
        end = special_token(end, model, "eos_token_id")
        if end is not None:
            end = whole_number("end", end, 0)
        if generated is None:
            start = special_token(start, model, "decoder_start_token_id")
            if start is None:
                raise ValueError(
                    "start is missing: pass the id of the token that decoding starts "
                    "with, or generated token ids."
                )
            start = whole_number("start", start, 0)
            max_outputs = whole_number("max_outputs", max_outputs, 1)
            first = torch.full((len(sources[0]), 1), start, device=sources[0].device)

            def logits(fed: Tensor) -> Tensor:
                return runner.output(sources, (fed, *further))

            generated = greedy(logits, first, end, max_outputs)
        ids = checked_ids(generated, len(sources[0]))
        fed, token_ids = ids[:, :-1], ids[:, 1:]
        lengths = output_lengths(token_ids, end)
        after = torch.arange(token_ids.shape[1], device=ids.device) >= lengths[:, None]
        targets = token_ids.masked_fill(after, self._ignore_index)

        def attribute(fed: Tensor, targets: Tensor) -> Tensor:
            found: Tensor | tuple[Tensor] = self.attribute(
                sources,
                targets,
                (fed, *further),
                internal_batch_size=internal_batch_size,
            )
            return found[0]

        if step_by_step:
            attributions = each_prefix(attribute, fed, targets, self._ignore_index)
        else:
            attributions = attribute(fed, targets)
        return GeneratedExplanation(
            token_ids, lengths, like_inputs(attributions, inputs)
        )

    def _of_layer(self, layer: LayerCalls, outputs: int) -> Tensor:
        """Scores of one module, ``(batch, outputs, keys)``."""
        if is_stepwise(layer.replicas[0], outputs):
            return layer.concatenated(
                lambda call, _: self.pair_scores.of_pairs(call), sum_over_heads, dim=1
            )
        return layer.total(lambda call, _: self.pair_scores.of_pairs(call))
