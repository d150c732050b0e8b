"""Gradients of attention weights, integrated from no attention to full attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from captum.log import log_usage
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import TargetType
from captum_attngrad.attr._core.base import AttentionGradientAttribution
from captum_attngrad.attr._core.inputs import Inputs, like_inputs, number_of_examples
from captum_attngrad.attr._core.layer_calls import (
    check_same_keys,
    layer_calls,
    total_over_layers,
)
from captum_attngrad.attr._core.reductions import PairScores
from captum_attngrad.attr._core.run_result import Run
from captum_attngrad.attr._core.selection import Heads, Query, checked_query
from captum_attngrad.attr._core.target import LossFunction
from captum_attngrad.attr._core.whole_numbers import checked_batch_size
from captum_attngrad.attr.path._baselines import sums_of_examples
from captum_attngrad.attr.path._points import (
    AttentionPath,
    Given,
    Point,
    check_steps,
    path_points,
)
from captum_attngrad.capture.calls import AttentionCall

_SCORES = PairScores(multiply=True)


class IntegratedAttentionGradient(AttentionGradientAttribution):
    r"""
    Attention times its gradient, integrated along the path from no attention to full
    attention: what each token contributes to the output by being attended to.

    The weights :math:`A` of the chosen layers are scaled by :math:`\alpha` from 0 to
    1, and the score of key k is

    .. math::
        \sum_l \sum_h \sum_q \int_0^1 A^{lh}_{qk}(\alpha) \,
        \frac{\partial s}{\partial (\alpha A^{lh}_{qk})} \, d\alpha .

    With ``scale="together"`` all layers are scaled at once and :math:`A(\alpha)` are
    the weights met on the way. The scores then sum to :math:`s(1) - s(0)`, what the
    attention of these layers adds to the output (completeness; the convergence delta
    says how closely). With ``scale="one"``, as published, one attention call is
    scaled at a time while the others stay as they are, and completeness holds for
    each of them: the scores of all calls sum to the sum of what each adds.

    Since :math:`(\alpha A) v = \alpha (A v)`, fused attention stays fused, and no
    (queries x keys) tensor is built.

    Cost: ``n_steps`` forward and backward passes, several in one larger batch, and
    one more forward pass; with ``scale="one"`` the ``n_steps`` are taken for each
    attention call. The output without any attention need not be a plausible one. To
    ask what happens to the output without a *token*, use Captum's IntegratedGradients
    with a masked baseline, or Occlusion. If a normalization directly follows the
    attention's output and undoes the scaling (Gemma 2), nearly all of the change
    happens close to :math:`\alpha = 0`: look at the convergence delta, and use
    :class:`AttentionGradient` if it stays large.

    Y. Hao, L. Dong, F. Wei and K. Xu, *Self-Attention Attribution: Interpreting
    Information Interactions Inside Transformer* (2021), where the scores of pairs are
    not summed.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        scale: Literal["together", "one"] = "together",
        heads: Heads = None,
        loss_func: LossFunction | None = None,
    ) -> None:
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model, or any function
                        that runs it, as for :class:`AttentionGradient`.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The modules
                        whose attention is scaled and explained, as for
                        :class:`AttentionGradient`.
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then
            device_ids (list[int], optional): Device ID list, necessary only if
                        forward_func applies a DataParallel model.
                        Default: None
            scale (str, optional): ``"together"`` scales all attention calls at once,
                        ``"one"`` one after the other.
                        Default: "together"
            heads (list[int] or Tensor, optional): The heads whose scores are summed:
                        indices, or a boolean mask, as for
                        :class:`AttentionGradient`. The path stays the same: all
                        heads are scaled.
                        Default: None, all heads
            loss_func (Callable, optional): Explain minus this loss, as for
                        :class:`AttentionGradient`.
                        Default: None
        """
        super().__init__(
            forward_func, layer, device_ids, heads=heads, loss_func=loss_func
        )
        if scale not in ("together", "one"):
            raise ValueError(f"scale={scale!r} is unknown: it is 'together' or 'one'.")
        self._scale = scale

    def has_convergence_delta(self) -> bool:
        return True

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        n_steps: int = 20,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        *,
        query: Query = None,
        show_progress: bool = False,
    ) -> Any:
        r"""
        Args:

            inputs (Tensor or tuple[Tensor, ...]): Input for which attributions are
                        computed, batch first, as for
                        :meth:`AttentionGradient.attribute`.
            target (int, tuple, Tensor, or list, optional): Output index, as for
                        :meth:`AttentionGradient.attribute`.
                        Default: None
            additional_forward_args (Any, optional): Further arguments of
                        forward_func, one argument or a tuple. The first dimension of
                        a tensor must be that of the examples: it is repeated for
                        each step.
                        Default: None
            n_steps (int, optional): The number of points on the path.
                        Default: 20
            method (str, optional): Method for approximating the integral, one of
                        `riemann_right`, `riemann_left`, `riemann_middle`,
                        `riemann_trapezoid` or `gausslegendre`, as in Captum.
                        Default: `gausslegendre`
            internal_batch_size (int, optional): Divides the points times the examples
                        into chunks of at most this many rows, which go through the
                        model one after the other. At least the number of examples.
                        Default: None, all in one batch
            return_convergence_delta (bool, optional): Whether to return the
                        convergence delta too, at the cost of one forward pass more
                        (with ``scale="one"``, one for each attention call).
                        Default: False
            query (int or Tensor, optional): Explain one query row instead of the
                        sum over all, as for :meth:`AttentionGradient.attribute`.
                        Default: None
            show_progress (bool, optional): Show a progress bar over the chunks.
                        Default: False

        Returns:
            **attributions** or 2-element tuple of **attributions**, **delta**:
            - **attributions** (*Tensor* or *tuple[Tensor]*):
                        ``(batch, keys)``, in units of the score. Positive: being
                        attended to, the token raises the score. Keys that may not be
                        attended to are exactly 0. If ``inputs`` is a tuple, a tuple
                        with this one tensor.
            - **delta** (*Tensor*, if return_convergence_delta is True):
                        ``(batch,)``, the sum of all scores (whatever ``heads`` and
                        ``query`` are) minus what it must be. It goes to 0 as
                        ``n_steps`` grows.

        Raises:
            ValueError: no attention in a layer; layers with different keys; a target
                        that is missing or out of range; a query or a head that is out
                        of range; an unknown method, too few steps.
            RuntimeError: the output does not depend on the attention weights; an
                        attention dropout is active.

        Examples::

            >>> iag = IntegratedAttentionGradient(model)
            >>> attributions, delta = iag.attribute(
            ...     input_ids, target=1, return_convergence_delta=True
            ... )
        """
        check_steps(n_steps, method)
        internal_batch_size = checked_batch_size(internal_batch_size)
        given = inputs, target, additional_forward_args
        full, path = self._full_attention(given)
        query = checked_query(query, number_of_examples(inputs))

        def at(chunk: list[Point]) -> tuple[Tensor, ...]:
            run = path.runner.run(
                *path.repeated(chunk), graph=True, intervention=path.scale(chunk)
            )
            path.check_same_calls(run.record)
            return self._sums(run, query, path.weights(chunk), len(chunk))

        together = self._scale == "together"
        total, complete = path.integrate(
            path_points(n_steps, method, None if together else path.calls),
            at,
            internal_batch_size,
            f"{self.get_name()} attribution",
            show_progress,
        )
        result = like_inputs(total, inputs)
        if not return_convergence_delta:
            return result
        return result, complete - self._expected_sum(full, path).to(complete)

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def compute_convergence_delta(
        self,
        attributions: Tensor | tuple[Tensor],
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: object | None = None,
    ) -> Tensor:
        r"""
        How far attributions are from completeness.

        Args:

            attributions (Tensor or tuple[Tensor]): What :meth:`attribute` returned for
                        all heads and queries.
            inputs, target, additional_forward_args: what it was called with.

        Returns:
            *Tensor* ``(batch,)``: the sum of the scores of each example, minus
            :math:`s(1) - s(0)`, its score with full attention minus that without any
            (``scale="one"``: the sum of these differences over the attention calls).

        Raises:
            ValueError: if only some heads are summed, which is not complete, or
                        attributions are those of other examples.
        """
        if self._heads is not None:
            raise ValueError(
                "The scores of some heads are not complete by themselves. Leave heads "
                "out, or use attribute(..., return_convergence_delta=True), which "
                "counts all heads in the delta."
            )
        total = sums_of_examples(attributions, number_of_examples(inputs))
        full, path = self._full_attention((inputs, target, additional_forward_args))
        return total - self._expected_sum(full, path).to(total)

    def _full_attention(self, given: Given) -> tuple[Run, AttentionPath]:
        """The end of the path."""
        runner = self.runner()
        full = runner.run(*given, graph=False)
        check_same_keys(layer_calls(full.record))
        return full, AttentionPath(runner, given, full.record)

    def _expected_sum(self, full: Run, path: AttentionPath) -> Tensor:
        """What the scores of all calls must sum to, ``(batch,)``."""
        total = torch.zeros_like(full.score)
        for call in [None] if self._scale == "together" else path.calls:
            off = path.scale([Point(0.0, 0.0, call)])
            without = path.runner.run(*path.given, graph=False, intervention=off)
            total = total + full.score - without.score
        return total

    def _sums(
        self, run: Run, query: Query, weights: dict[int, Tensor], points: int
    ) -> tuple[Tensor, Tensor]:
        """Some points' part of the integral: ``(batch, keys)`` for the chosen heads and
        queries, and ``(batch,)`` for all of them."""

        def of_call(call: AttentionCall, rows: Tensor | None) -> Tensor:
            # sum_q A_qk ds/d(alpha A_qk). With alpha v as the values of a fused call,
            # their gradient gives it at alpha = 0 too.
            scores = _SCORES.of_keys(call, rows)
            return scores * weights[call.site_index].to(scores)[:, None, None]

        rows = query.repeat(points) if isinstance(query, Tensor) else query
        every = total_over_layers(layer_calls(run.record), of_call)
        chosen = every
        if self._heads is not None or query is not None:
            chosen = total_over_layers(self.layers_of(run.record), of_call, rows)
        chosen = chosen.unflatten(0, (points, -1)).sum(dim=0)
        return chosen, every.sum(dim=1).view(points, -1).sum(dim=0)
