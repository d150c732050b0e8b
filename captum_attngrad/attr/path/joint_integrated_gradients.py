"""Integrated gradients along a path on which attention and embeddings grow together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from captum._utils.progress import NullProgress, progress
from captum._utils.typing import BaselineType, TargetType
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.base import (
    AttentionGradientAttribution,
    Inputs,
    repeated,
)
from captum_attngrad.attr._core.embedding import (
    check_embedding,
    check_keys_are_tokens,
    embeddings_lost,
    embeddings_of,
)
from captum_attngrad.attr._core.embedding_layout import batch_dimension
from captum_attngrad.attr._core.reductions import PairScores
from captum_attngrad.attr._core.running import uncompiled
from captum_attngrad.attr._core.target import LossFunction
from captum_attngrad.attr._core.whole_numbers import checked_batch_size
from captum_attngrad.attr.path._points import (
    Point,
    both_ends,
    check_same_calls,
    check_steps,
    in_chunks,
    path_points,
    scaled_with,
    sums_of_examples,
)
from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture._layout import ExampleDimension
from captum_attngrad.capture.recorder import AttentionRecord

_SCORES = PairScores(multiply=True)


class Ends(NamedTuple):
    """The embeddings that a path goes between, ``(batch, tokens, features)``."""

    masked: Tensor
    text: Tensor
    dim: int  # of the examples in the layout of the model, 0 or 1


class JointIntegratedGradients(AttentionGradientAttribution):
    r"""
    What each token contributes to the output by its own vector and by being attended
    to, integrated along one path from a masked input without attention to the input
    with its full attention.

    At the point :math:`t` of the path the token embeddings are
    :math:`e(t) = m + t\,(e - m)`, with m the embeddings of the baseline, and the
    attention weights of the chosen layers are scaled to :math:`t A(t)`. The score of
    token k is

    .. math::
        S_k = \int_0^1 \Big[ (e_k - m_k) \cdot \frac{\partial s}{\partial e_k(t)} +
        \sum_l \sum_h \sum_q A^{lh}_{qk}(t)
        \frac{\partial s}{\partial (t A^{lh}_{qk})} \Big] dt ,

    Integrated Gradients (Sundararajan et al. 2017) with the attention weights as
    further variables of the path. The scores sum to the score of the input minus that
    of the baseline without attention (completeness; the convergence delta says how
    closely).

    It was found in a search for scores that need few passes. On 876 movie reviews and a
    six-layer BERT, three steps of it were better than fifty of Integrated Gradients in
    agreement with leave-one-out, polarity and inhibitor gain, equal in
    comprehensiveness, and worse in sufficiency by 0.004 to 0.010; on an LSTM with one
    attention layer it was better in agreement with leave-one-out, and worse by at most
    0.005 in comprehensiveness and sufficiency. :class:`AttentionDeepLift` did better on
    the BERT (``benchmarks/search`` has the numbers). The scores are best for an output
    that does not saturate: explain :func:`~captum_attngrad.attr.log_odds` and not a
    probability.

    Cost: ``n_steps`` forward and backward passes, several in one larger batch, and
    two forward passes more (three where the size of the embeddings does not show which
    of their dimensions is the batch). Fused attention stays fused, and no tensor of
    (queries x keys) is built. When not to use it: where baselines mean nothing to the
    model (no mask, unknown or padding token), or where it is the attention alone that
    is asked about (:class:`IntegratedAttentionGradient`).
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        embedding: Module,
        loss_func: LossFunction | None = None,
    ) -> None:
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model, or any function
                        that runs it, as for :class:`AttentionGradient`.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The modules
                        whose attention is scaled, as for :class:`AttentionGradient`.
                        Their keys must be the tokens.
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then
            device_ids (list[int], optional): Device ID list, as for
                        :class:`AttentionGradient`. Replicas on several devices are
                        not supported.
                        Default: None
            embedding (torch.nn.Module): The module that turns tokens into vectors
                        ``(batch, tokens, features)`` (or, as in XLNet, ``(tokens,
                        batch, features)``), called once in a forward pass, such as
                        ``model.get_input_embeddings()`` of Hugging Face.
            loss_func (Callable, optional): Explain minus this loss, as for
                        :class:`AttentionGradient`.
                        Default: None
        """
        super().__init__(forward_func, layer, device_ids, loss_func=loss_func)
        self._embedding = check_embedding(embedding)

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: gradients are multiplied by what changes along the path."""
        return True

    def has_convergence_delta(self) -> bool:
        return True

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        n_steps: int = 3,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        *,
        show_progress: bool = False,
    ) -> Any:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input for which attributions are
                        computed, batch first, as for
                        :meth:`AttentionGradient.attribute`.
            baselines (scalar, Tensor, tuple of scalar, or Tensor, optional): Where
                        the path starts, in the forms that Captum's
                        IntegratedGradients takes. For tokens, as a rule, the input
                        with every token but the special ones replaced by the mask
                        token.
                        Default: None, zeros
            target (int, tuple, Tensor, or list, optional): Output index, as for
                        :meth:`AttentionGradient.attribute`.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of
                        forward_func, one argument or a tuple. The first dimension of
                        a tensor must be that of the examples: it is repeated for
                        each step.
                        Default: None
            n_steps (int, optional): The number of points on the path.
                        Default: 3
            method (str, optional): Method for approximating the integral, one of
                        `riemann_right`, `riemann_left`, `riemann_middle`,
                        `riemann_trapezoid` or `gausslegendre`, as in Captum.
                        Default: `gausslegendre`
            internal_batch_size (int, optional): Divides the points times the examples
                        into chunks of at most this many rows, which go through the
                        model one after the other. At least the number of examples.
                        Default: None, all in one batch
            return_convergence_delta (bool, optional): Whether to return the
                        convergence delta too, at the cost of one forward pass more.
                        Default: False
            show_progress (bool, optional): Show a progress bar over the chunks.
                        Default: False

        Returns:
            **attributions** or 2-element tuple of **attributions**, **delta**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                        ``(batch, tokens)``, in units of the score. Positive: the
                        token raises the score. If ``inputs`` is a tuple, a tuple with
                        this one tensor.
            - **delta** (*Tensor*, if return_convergence_delta is True):
                        ``(batch,)``, the sum of all scores minus what it must be. It
                        goes to 0 as ``n_steps`` grows.

        Raises:
            TypeError: ``embedding`` is no module.
            ValueError: no attention in a layer; keys that are not the tokens; an
                        embedding that is not called once; baselines of another shape;
                        a target that is missing or out of range; an unknown method,
                        too few steps.
            RuntimeError: the output does not depend on the attention weights or on
                        the embeddings; an attention dropout is active.
            NotImplementedError: replicas of the model on several devices.

        Examples::

            >>> method = JointIntegratedGradients(
            ...     lambda ids: log_odds(model(ids).logits),
            ...     model.bert.encoder,
            ...     embedding=model.get_input_embeddings(),
            ... )
            >>> masked = input_ids.masked_fill(~special_tokens, tokenizer.mask_token_id)
            >>> attributions = method.attribute(input_ids, masked, target=1)
        """
        check_steps(n_steps, method)
        internal_batch_size = checked_batch_size(internal_batch_size)
        formatted, begin = both_ends(inputs, baselines)
        record, text, score = self._plain(formatted, target, additional_forward_args)
        masked = self._plain(begin, target, additional_forward_args)[1]
        ends = self._ends(masked, text, begin, formatted, additional_forward_args)
        check_keys_are_tokens(record, ends.text)
        total = self._along(
            path_points(n_steps, method, None),
            (formatted, target, additional_forward_args),
            record,
            ends,
            internal_batch_size,
            progress if show_progress else NullProgress,
        )
        result = (total,) if isinstance(inputs, tuple) else total
        if not return_convergence_delta:
            return result
        start = self._start(begin, target, additional_forward_args, record)
        return result, total.sum(dim=1) - (score - start).to(total)

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def compute_convergence_delta(
        self,
        attributions: Tensor | tuple[Tensor],
        start_point: BaselineType,
        end_point: Inputs,
        target: TargetType = None,
        additional_forward_args: object | None = None,
    ) -> Tensor:
        r"""
        How far attributions are from completeness.

        Args:

            attributions (Tensor or tuple[Tensor]): What :meth:`attribute` returned.
            start_point (scalar, Tensor, tuple of scalar, or Tensor): The ``baselines``
                        that it was called with; None for zeros. The path starts there
                        without attention.
            end_point (Tensor or tuple[Tensor, ...]): The ``inputs`` that it was called
                        with.
            target, additional_forward_args: what it was called with.

        Returns:
            *Tensor* ``(batch,)``: the sum of the scores of each example, minus its
            score with full attention, plus that of its baseline without attention.

        Raises:
            ValueError: attributions of other examples; and as :meth:`attribute`.
        """
        formatted, begin = both_ends(end_point, start_point)
        total = sums_of_examples(attributions, len(formatted[0]))
        record, _, score = self._plain(formatted, target, additional_forward_args)
        start = self._start(begin, target, additional_forward_args, record)
        return total - (score - start).to(total)

    def _start(
        self,
        begin: tuple[Tensor, ...],
        target: TargetType,
        additional_forward_args: object | None,
        record: AttentionRecord,
    ) -> Tensor:
        """The score where the path starts: baselines, and no attention."""
        places = [call.place for call in record]
        without = scaled_with([Point(0.0, 0.0, None)], places, len(begin[0]))
        return self._plain(begin, target, additional_forward_args, without)[2]

    def _plain(
        self,
        inputs: tuple[Tensor, ...],
        target: TargetType,
        additional_forward_args: object | None,
        intervention: Intervention | None = None,
        inside: AbstractContextManager[None] | None = None,
    ) -> tuple[AttentionRecord, Tensor, Tensor]:
        """A forward pass without autograd: the attention calls, the embeddings (as
        the model lays them out) and the score. It runs inside a context, if there is
        one."""
        with self._running(inputs, additional_forward_args) as (layers, arguments):
            recorder = self._recorder(layers, intervention=intervention)
            with (
                torch.no_grad(),
                inside or nullcontext(),
                embeddings_of(uncompiled(self._embedding)) as embeddings,
            ):
                score = self._score(recorder, arguments, target)
            record = self._finished(recorder, layers, arguments)
        if len(record.parts) > 1:
            raise NotImplementedError(
                "Replicas of a model on several devices cannot be explained along a "
                "path of embeddings. Pass the model itself (data_parallel.module)."
            )
        return record, embeddings.given, score

    def _ends(
        self,
        masked: Tensor,
        text: Tensor,
        begin: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        additional_forward_args: object | None,
    ) -> Ends:
        """The embeddings of baselines and inputs, batch first."""
        if masked.shape != text.shape:
            raise ValueError(
                f"The baselines have embeddings of shape {tuple(masked.shape)}, and "
                f"the inputs of {tuple(text.shape)}: they must have the same tokens "
                "and features."
            )

        def embedded(inputs: Inputs, arguments: object | None) -> Tensor:
            with (
                self._running(inputs, arguments) as (_, all_arguments),
                embeddings_of(uncompiled(self._embedding)) as embeddings,
                torch.no_grad(),
            ):
                uncompiled(self.forward_func)(*all_arguments)
            return embeddings.given

        def doubled() -> Tensor:
            both, _, arguments = repeated(inputs, None, additional_forward_args, 2)
            return embedded(both, arguments)

        dim = batch_dimension(
            type(uncompiled(self._embedding)).__name__,
            text,
            inputs,
            begin,
            lambda changed: embedded(changed, additional_forward_args),
            doubled,
        )
        return Ends(masked.transpose(0, dim), text.transpose(0, dim), dim)

    def _along(
        self,
        points: list[Point],
        arguments: tuple[Inputs, TargetType, object | None],
        record: AttentionRecord,
        ends: Ends,
        internal_batch_size: int | None = None,
        bar: Any = NullProgress,
    ) -> Tensor:
        """The sum over the points of a path between the embeddings ``ends``, for a
        model whose attention calls are those of ``record``."""
        places = [call.place for call in record]
        total: Tensor | None = None
        where = None
        if len(points) > 1:
            where = self._example_dimensions(record, arguments[0], arguments[2])
        chunks = in_chunks(points, len(ends.text), internal_batch_size, where is None)
        for chunk in bar(chunks, desc=f"{self.get_name()} attribution"):
            of_points = repeated(*arguments, len(chunk))
            scores = self._at(chunk, places, where, ends, of_points)
            total = scores if total is None else total + scores
        assert total is not None
        return total

    def _at(
        self,
        chunk: list[Point],
        places: list[int],
        where: dict[int, ExampleDimension] | None,
        ends: Ends,
        of_points: tuple[Inputs, TargetType, object | None],
    ) -> Tensor:
        """What these points of the path add to the scores, ``(batch, tokens)``."""
        inputs, target, additional_forward_args = of_points
        masked, change = ends.masked, ends.text - ends.masked
        scale = scaled_with(chunk, places, len(masked), where)
        with self._running(inputs, additional_forward_args) as (layers, arguments):
            # Made in here, where inference_mode is off: its tensors take no gradients.
            vectors = torch.cat([masked + point.factor * change for point in chunk])
            vectors.requires_grad_()
            recorder = self._recorder(layers, value_gradients=True, intervention=scale)
            put_in = vectors.transpose(0, ends.dim).contiguous()
            with embeddings_of(uncompiled(self._embedding), put_in=put_in):
                score = self._score(recorder, arguments, target)
            record = self._finished(recorder, layers, arguments)
            (gradient,) = record.compute_gradients(score, [vectors])
        check_same_calls(record, places)
        self._check_on_path(record, layers)
        if gradient is None:
            raise embeddings_lost()
        scores = (gradient * change.repeat(len(chunk), 1, 1)).sum(dim=-1)
        for call in record:
            if call.on_path:
                scores = scores + _SCORES.of_keys(call).sum(dim=1).to(scores)
        weights = torch.tensor([p.weight for p in chunk], dtype=torch.float64)
        weights = weights.to(scores)
        return torch.einsum("p,pbk->bk", weights, scores.unflatten(0, (len(chunk), -1)))


def log_odds(logits: Tensor) -> Tensor:
    r"""
    The log-odds of each class, :math:`\log p_c - \log (1 - p_c)`: a score that, unlike
    a probability, does not flatten where the model is sure, and, unlike a logit, does
    not move when a constant is added to all logits.

    Args:
        logits (Tensor): ``(..., classes)``, at least two classes.

    Returns:
        *Tensor* of the shape of ``logits``.

    Raises:
        ValueError: if there are fewer than two classes.

    Examples::

        >>> log_odds(torch.tensor([[2.0, 0.5]]))
        tensor([[ 1.5000, -1.5000]])
    """
    classes = logits.shape[-1] if logits.dim() else 0
    if classes < 2:
        raise ValueError(
            f"log_odds needs logits (..., classes) of at least two classes, got shape "
            f"{tuple(logits.shape)}. For one logit it is the logit itself."
        )
    own = torch.eye(classes, dtype=torch.bool, device=logits.device)
    others = logits.unsqueeze(-2).masked_fill(own, -torch.inf).logsumexp(dim=-1)
    return logits - others
