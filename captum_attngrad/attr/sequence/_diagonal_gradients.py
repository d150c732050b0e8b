"""The gradient of every output with respect to the attention that it used itself.

With scores ``s_t`` of the outputs and the attention output ``O_t`` of row (or call) t,
what is wanted is ``ds_t / dO_t`` for all t: the block diagonal of a Jacobian. A plain
backward pass of ``sum_t s_t`` gives ``sum_t' ds_t' / dO_t`` in its place, with what
later outputs make of ``O_t``.

Three ways to the diagonal, all from one forward pass:

* One pass. Where the outputs share nothing but causal self-attention, which
  :class:`IsolatePositions` can keep apart, a backward pass of the sum is enough. A
  second pass, with the scores multiplied by different powers of two, shows whether that
  holds: without influence between outputs each row must come out multiplied by its own
  factor.
* Step by step. Where a recurrent decoder puts its outputs together from one part per
  step, a pass from the scores to the parts and one from each part to the attention of
  its own step are enough, and visit each step once. That parts do not share anything
  above, and that nothing goes past them, is checked with two passes.
* Several outputs in one pass, as a batch of backward passes (``is_grads_batched``).
  Nothing is asked of the model; the cost grows with outputs x their number.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_attngrad.attr._core.run import gradients
from captum_attngrad.attr.sequence._isolated_positions import Switch
from captum_attngrad.attr.sequence._step_outputs import StepOutputs
from captum_attngrad.capture.calls import AttentionCall, FusedCall

Gradients = list[Tensor | None]  # one for each call, as the call's tensors are laid out

# How closely rows must follow their factors, relative to their largest entry. Scaling
# by powers of two is exact; kernels may still add in another order.
_TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}
_TOLERANCE_HALF = 1e-2
_LEVELS = 8  # factors 2^-4 .. 2^3, also safe in half precision
_OUTPUTS_PER_PASS = 16
_ELEMENTS_PER_PASS = 1 << 26


class Preparation(NamedTuple):
    """How a forward pass was prepared to tell its outputs apart."""

    switch: Switch  # of :class:`IsolatePositions`
    steps: StepOutputs


class OutputCall(NamedTuple):
    """An attention call, and the output that used it."""

    call: AttentionCall
    output: int | None  # the output that used it; None: one row for each output
    first: int  # the first of its examples (replicas have some of them each)

    @property
    def examples(self) -> slice:
        return slice(self.first, self.first + self.call.batch_size)


def set_diagonal_gradients(
    scores: Tensor,
    kept: Tensor,
    calls: list[OutputCall],
    prepared: Preparation,
    output_size: int,
    outputs_per_pass: int | None,
) -> None:
    """Give each call the gradient, in row t, of output t.

    Args:
        scores (Tensor): ``(batch, outputs)``.
        kept (Tensor): booleans, which of them count.
        calls (list of OutputCall): the attention of all outputs.
        prepared (Preparation): of the forward pass.
        output_size (int): number of elements of the model's output.
        outputs_per_pass (int, optional): at most so many outputs in a batch of backward
            passes. Default: as many as are fast and fit into memory.
    """
    outputs = [t for t, used in enumerate(kept.any(dim=0).tolist()) if used]
    by_row = all(own.output is None for own in calls)
    found = None
    if by_row and len(outputs) > 2:
        found = _in_one_pass(scores, kept, calls, prepared.switch)
    elif len(outputs) > 2 and prepared.steps.found:
        found = _step_by_step(scores, kept, calls, prepared.steps.found)
    if found is None:
        if outputs_per_pass is None:
            size = output_size + sum(_size(own.call) for own in calls)
            most = min(_OUTPUTS_PER_PASS, _ELEMENTS_PER_PASS // max(1, size))
            outputs_per_pass = max(1, most)
        found = _in_batches(scores, kept, calls, outputs, outputs_per_pass)
    for own, gradient in zip(calls, found, strict=True):
        own.call.set_gradients([gradient])


def _size(call: AttentionCall) -> int:
    return call.batch_size * call.heads * call.query_length * call.key_length


# -- one pass -----------------------------------------------------------------------


def _in_one_pass(
    scores: Tensor, kept: Tensor, calls: list[OutputCall], switch: Switch
) -> Gradients | None:
    """The gradients, or None if one output influences the row of another."""
    factors = _factors(kept).to(scores.dtype)
    sources = [own.call.sources[0] for own in calls]
    with switch.isolated():
        scaled, plain = (
            gradients(scores, sources, cotangents)
            for cotangents in (factors * kept, kept.to(scores.dtype))
        )
    for own, left, right in zip(calls, scaled, plain, strict=True):
        if left is None or right is None:
            if left is not right:
                return None
        elif not _follow(own.call, left, right, factors[own.examples]):
            return None
    return plain


def _factors(kept: Tensor) -> Tensor:
    """Powers of two, all different among ``_LEVELS`` consecutive outputs."""
    batch, outputs = kept.shape
    generator = torch.Generator().manual_seed(0)
    blocks = -(-outputs // _LEVELS)
    order = torch.rand(batch, blocks, _LEVELS, generator=generator).argsort(dim=-1)
    levels = order.flatten(1)[:, :outputs] - _LEVELS // 2
    return torch.pow(2.0, levels).to(kept.device)


def _follow(call: AttentionCall, scaled: Tensor, plain: Tensor, by: Tensor) -> bool:
    """Whether each row of ``scaled`` is its row of ``plain`` times its factor."""
    found, rows = _arranged(call, scaled), _arranged(call, plain)
    by = by.to(found.device, found.dtype)[:, None, :, None]
    largest = rows.abs().amax(dim=-1, keepdim=True)
    tolerance = _TOLERANCE.get(call.dtype, _TOLERANCE_HALF)
    # A difference that is not a number is no agreement.
    return bool(((found / by - rows).abs() <= tolerance * largest).all())


def _arranged(call: AttentionCall, gradient: Tensor) -> Tensor:
    """``(batch, heads, queries, ...)``."""
    call.set_gradients([gradient])
    return call.output_gradient if isinstance(call, FusedCall) else call.gradient()


# -- step by step -------------------------------------------------------------------


def _step_by_step(
    scores: Tensor, kept: Tensor, calls: list[OutputCall], places: list[list[Tensor]]
) -> Gradients | None:
    """The gradients, or None if the parts do not keep the outputs apart."""
    if any(own.output is None for own in calls):
        return None
    sources = [own.call.sources[0] for own in calls]
    parts = [part for place in places for part in place]
    ones = kept.to(scores.dtype)
    factors = _factors(ones[:1]).to(scores.dtype)
    plain = gradients(scores, [*parts, *sources], ones)
    scaled = gradients(scores, parts, ones * factors)
    whole = plain[len(parts) :]
    used = [i for i, gradient in enumerate(plain[: len(parts)]) if gradient is not None]
    by = factors[0].repeat(len(places)).tolist()
    for i in used:
        if not _agree(scaled[i], plain[i], factor=by[i]):
            return None  # parts share what comes after them
    roots = [parts[i] for i in used]
    below = [plain[i] for i in used]
    through = gradients(roots, sources, below)
    # The same sums, in another order.
    if not all(_agree(a, b, slack=10) for a, b in zip(through, whole, strict=True)):
        return None  # something goes past the parts
    diagonal: Gradients = [None] * len(calls)
    for t in range(scores.shape[1]):
        own = [i for i in used if i % scores.shape[1] == t]
        here = [i for i, call in enumerate(calls) if call.output == t]
        found = gradients(
            [parts[i] for i in own],
            [sources[i] for i in here],
            [plain[i] for i in own],
        )
        for i, gradient in zip(here, found, strict=True):
            diagonal[i] = gradient
    return diagonal


def _agree(
    found: Tensor | None, expected: Tensor | None, factor: float = 1, slack: float = 1
) -> bool:
    if found is None or expected is None:
        return found is expected
    tolerance = slack * _TOLERANCE.get(found.dtype, _TOLERANCE_HALF)
    difference = (found / factor - expected).abs()
    return bool((difference <= tolerance * expected.abs().max()).all())


# -- batches of backward passes -----------------------------------------------------


def _in_batches(
    scores: Tensor,
    kept: Tensor,
    calls: list[OutputCall],
    outputs: list[int],
    outputs_per_pass: int,
) -> Gradients:
    diagonal: Gradients = [None] * len(calls)
    for start in range(0, len(outputs), outputs_per_pass):
        chosen = outputs[start : start + outputs_per_pass]
        here = [
            i
            for i, own in enumerate(calls)
            if own.output is None or own.output in chosen
        ]
        found = _backward(
            scores, kept, chosen, [calls[i].call.sources[0] for i in here]
        )
        for i, batch in zip(here, found, strict=True):
            if batch is None:
                continue
            own = calls[i]
            if own.output is not None:
                diagonal[i] = batch[chosen.index(own.output)]
                continue
            total = diagonal[i]
            if total is None:
                total = diagonal[i] = torch.zeros_like(batch[0])
            _copy_rows(own.call, batch, chosen, total)
    return diagonal


def _backward(
    scores: Tensor, kept: Tensor, outputs: list[int], sources: list[Any]
) -> list[Tensor | None]:
    """For each source ``(len(outputs), ...)``, the gradient of each of the outputs."""
    cotangents = torch.zeros(
        len(outputs), *scores.shape, dtype=scores.dtype, device=scores.device
    )
    for place, output in enumerate(outputs):
        cotangents[place, :, output] = kept[:, output].to(scores.dtype)
    if len(outputs) > 1:
        try:
            with warnings.catch_warnings():
                # An operation without a batched backward takes its turns: no news.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                return gradients(scores, sources, cotangents, batched=True)
        except RuntimeError as error:
            if not _cannot_be_batched(error):
                raise
            # Some operation cannot be batched: one output after the other.
    single = [gradients(scores, sources, cotangent) for cotangent in cotangents]
    return [
        None if found[0] is None else torch.stack(found)
        for found in zip(*single, strict=True)
    ]


# How torch says, from 2.3 to 2.13, that an operation of a backward pass cannot run on
# a batch of cotangents: no rule for it, a write of batched values into a tensor that is
# not batched, a random operation, or an operation that reads memory or sizes directly.
_CANNOT_BE_BATCHED = (
    "Batching rule not implemented for ",
    "vmap: ",
    "vmap only supports tensors of dimensionality up to ",
    "NYI: ",
    "Cannot access data pointer of Tensor that doesn't have storage",
    "!batched_tensor_inputs.empty() INTERNAL ASSERT FAILED",
)


def _cannot_be_batched(error: RuntimeError) -> bool:
    """Whether ``error`` is about the batch. Anything else, running out of memory above
    all, would not go away one output at a time, or would go away slowly and unseen."""
    # What batched tensors do not have at all, such as a storage, is not implemented.
    return isinstance(error, NotImplementedError) or str(error).startswith(
        _CANNOT_BE_BATCHED
    )


def _copy_rows(
    call: AttentionCall, batch: Tensor, outputs: list[int], total: Tensor
) -> None:
    """Row t of the gradient of output t."""
    dim = call.query_dim
    if dim is None:
        total.copy_(batch[0])
        return
    rows = batch.movedim(dim % (batch.dim() - 1) + 1, 1)
    for place, output in enumerate(outputs):
        total.select(dim, output).copy_(rows[place, output])
