"""The gradient of every output by the attention that this output used itself.

With scores ``s_t`` of the outputs and the attention output ``O_t`` of row (or call) t,
this is ``ds_t / dO_t`` for all t: the block diagonal of a Jacobian. A plain backward
pass of ``sum_t s_t`` gives ``sum_t' ds_t' / dO_t``, which includes what later outputs
make of ``O_t``.

There are three ways to the diagonal, all from one forward pass:

* One pass. If the outputs share nothing but causal self-attention, and
  :class:`IsolatePositions` keeps their positions apart, one backward pass of the sum is
  enough. A second pass, with the scores multiplied by different powers of two, checks
  this: without influence between outputs, each row is multiplied by its own factor.
* Step by step. If a recurrent decoder joins its outputs from one tensor per step, one
  pass from the scores to these tensors and one from each of them to the attention of
  its own step are enough, and visit each step once. Two more passes check that the
  outputs share nothing after these tensors, and that nothing bypasses them.
* In batches of backward passes (``is_grads_batched``). This works for any model, and
  its cost grows with the number of outputs.
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
_MAX_OUTPUTS_PER_PASS = 16
_MAX_ELEMENTS_PER_PASS = 1 << 26


class Preparation(NamedTuple):
    """How a forward pass was prepared to tell its outputs apart."""

    switch: Switch  # of :class:`IsolatePositions`
    steps: StepOutputs


class OutputCall(NamedTuple):
    """An attention call, and the output that used it."""

    call: AttentionCall
    output: int | None  # None: the call has one row for each output
    first: int  # the first of its examples (replicas have some of them each)

    @property
    def examples(self) -> slice:
        return slice(self.first, self.first + self.call.batch_size)

    @property
    def size(self) -> int:
        """The number of its attention weights."""
        call = self.call
        return call.batch_size * call.heads * call.query_length * call.key_length


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
    by_row = all(each.output is None for each in calls)
    found = None
    if by_row and len(outputs) > 2:
        found = _in_one_pass(scores, kept, calls, prepared.switch)
    elif len(outputs) > 2 and prepared.steps.found:
        found = _step_by_step(scores, kept, calls, prepared.steps.found)
    if found is None:
        if outputs_per_pass is None:
            size = output_size + sum(each.size for each in calls)
            most = min(_MAX_OUTPUTS_PER_PASS, _MAX_ELEMENTS_PER_PASS // max(1, size))
            outputs_per_pass = max(1, most)
        found = _in_batches(scores, kept, calls, outputs, outputs_per_pass)
    for each, gradient in zip(calls, found, strict=True):
        each.call.set_gradients([gradient])


# -- one pass -----------------------------------------------------------------------


def _in_one_pass(
    scores: Tensor, kept: Tensor, calls: list[OutputCall], switch: Switch
) -> Gradients | None:
    """The gradients, or None if one output influences the row of another."""
    factors = _factors(kept).to(scores.dtype)
    sources = [each.call.sources[0] for each in calls]
    with switch.isolated():
        scaled, plain = (
            gradients(scores, sources, cotangents)
            for cotangents in (factors * kept, kept.to(scores.dtype))
        )
    for each, left, right in zip(calls, scaled, plain, strict=True):
        if left is None or right is None:
            if left is not right:
                return None
        elif not _follow(each.call, left, right, factors[each.examples]):
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
    # A difference of nan is a disagreement.
    return bool(((found / by - rows).abs() <= tolerance * largest).all())


def _arranged(call: AttentionCall, gradient: Tensor) -> Tensor:
    """``(batch, heads, queries, ...)``."""
    call.set_gradients([gradient])
    return call.output_gradient if isinstance(call, FusedCall) else call.gradient()


# -- step by step -------------------------------------------------------------------


def _step_by_step(
    scores: Tensor, kept: Tensor, calls: list[OutputCall], joined: list[list[Tensor]]
) -> Gradients | None:
    """The gradients, or None if outputs share more than the tensors of their steps.

    Args:
        joined (list of lists of Tensor): one tensor per output, for each operation that
            puts outputs together.
    """
    if any(call.output is None for call in calls):
        return None
    outputs = scores.shape[1]
    sources = [each.call.sources[0] for each in calls]
    # (output, tensor)
    steps = [pair for tensors in joined for pair in enumerate(tensors)]
    tensors = [tensor for _, tensor in steps]
    ones = kept.to(scores.dtype)
    factors = _factors(ones[:1]).to(scores.dtype)
    plain = gradients(scores, [*tensors, *sources], ones)
    scaled = gradients(scores, tensors, ones * factors)
    plain, whole = plain[: len(steps)], plain[len(steps) :]
    used = [i for i, gradient in enumerate(plain) if gradient is not None]
    for i in used:
        if not _agree(scaled[i], plain[i], factor=float(factors[0, steps[i][0]])):
            return None  # the outputs share what comes after these tensors

    def through(tensor_indices: list[int], sources: list[Any]) -> Gradients:
        return gradients(
            [tensors[i] for i in tensor_indices],
            sources,
            [plain[i] for i in tensor_indices],
        )

    # The same sums, in another order.
    pairs = zip(through(used, sources), whole, strict=True)
    if not all(_agree(found, expected, slack=10) for found, expected in pairs):
        return None  # something reaches the outputs without these tensors
    diagonal: Gradients = [None] * len(calls)
    for t in range(outputs):
        here = [i for i, call in enumerate(calls) if call.output == t]
        found = through(
            [i for i in used if steps[i][0] == t], [sources[i] for i in here]
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
            for i, each in enumerate(calls)
            if each.output is None or each.output in chosen
        ]
        found = _backward(
            scores, kept, chosen, [calls[i].call.sources[0] for i in here]
        )
        for i, batch in zip(here, found, strict=True):
            if batch is None:
                continue
            each = calls[i]
            if each.output is not None:
                diagonal[i] = batch[chosen.index(each.output)]
                continue
            total = diagonal[i]
            if total is None:
                total = diagonal[i] = torch.zeros_like(batch[0])
            _copy_rows(each.call, batch, chosen, total)
    return diagonal


def _backward(
    scores: Tensor, kept: Tensor, outputs: list[int], sources: list[Any]
) -> list[Tensor | None]:
    """For each source ``(len(outputs), ...)``, the gradient of each of the outputs."""
    cotangents = torch.zeros(
        len(outputs), *scores.shape, dtype=scores.dtype, device=scores.device
    )
    for row, output in enumerate(outputs):
        cotangents[row, :, output] = kept[:, output].to(scores.dtype)
    if len(outputs) > 1:
        try:
            with warnings.catch_warnings():
                # Operations without a batched backward run one after the other.
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
    for row, output in enumerate(outputs):
        total.select(dim, output).copy_(rows[row, output])
