"""One forward and backward pass at a point of a path, with all that it yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.search.subjects import Batch, Subject

# What is differentiated: from logits (batch, classes) and target (batch,).
Score = Callable[[Tensor, Tensor], Tensor]


def probability(logits: Tensor, target: Tensor) -> Tensor:
    return _of_target(logits.softmax(dim=1), target)


def logit(logits: Tensor, target: Tensor) -> Tensor:
    return _of_target(logits, target)


def log_odds(logits: Tensor, target: Tensor) -> Tensor:
    others = logits.scatter(1, target.unsqueeze(1), -torch.inf).logsumexp(dim=1)
    return _of_target(logits, target) - others


def _of_target(values: Tensor, target: Tensor) -> Tensor:
    return values.gather(1, target.unsqueeze(1)).squeeze(1)


@dataclass
class Point:
    """What a pass yields. ``attention`` and ``reference`` hold one tensor a call.

    Args:
        score (Tensor): (batch,)
        vectors (Tensor): gradient with respect to the word vectors.
        attention (list): sum_q A_qk dO_q . v_k, (batch, heads, keys); dO is the
            gradient with respect to the (changed) output of attention.
        raw (list): sum_q dO_q . v_k, the same without the weights.
        reference (list): the same of the reference that took part, if any.
        states, gradients (list): of the tokens after each layer.
    """

    score: Tensor
    vectors: Tensor
    attention: list[Tensor]
    raw: list[Tensor]
    reference: list[Tensor]
    states: list[Tensor]
    gradients: list[Tensor]


# The attention of the reference text: for each call, its values and how to attend.
Reference = list[tuple[Tensor, Callable[[Tensor], Tensor]]]


def reference_of(subject: Subject, batch: Batch, vectors: Tensor) -> Reference:
    """Attention on another text, as a rule the masked one."""
    kept: Reference = []

    def change(_: int, value: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        kept.append((value, attend))
        return attend(value)

    with torch.no_grad():
        subject.run(vectors, batch.mask, change)
    return kept


def run_point(
    subject: Subject,
    batch: Batch,
    vectors: Tensor,
    alpha: float = 1.0,
    score: Score = probability,
    reference: Reference | None = None,
) -> Point:
    """
    Run with the outputs of all attention calls scaled by ``alpha``; with a reference,
    they are moved from its outputs to their own by ``alpha``.
    """
    vectors = vectors.detach().requires_grad_()
    values, outputs, others = [], [], []

    def change(
        number: int, value: Tensor, attend: Callable[[Tensor], Tensor]
    ) -> Tensor:
        value = value.view_as(value)  # a tensor that only this call uses
        values.append(value)
        output = attend(value)
        if reference is not None:
            other, attend_other = reference[number]
            other = other.detach().requires_grad_()
            others.append(other)
            # Unscaled, so that the gradient for v is that of A dO.
            mixed = alpha * output + (1 - alpha) * attend_other(other)
        else:
            mixed = alpha * output
        outputs.append(mixed)
        return mixed

    with torch.enable_grad():
        logits, states = subject.run(vectors, batch.mask, change)
        scalar = score(logits, batch.target)
    wanted = [vectors, *values, *outputs, *others, *states]
    found = torch.autograd.grad(scalar.sum(), wanted, allow_unused=True)
    found = [
        torch.zeros_like(of) if gradient is None else gradient
        for of, gradient in zip(wanted, found, strict=True)
    ]
    calls = len(values)
    dv, do = found[1 : 1 + calls], found[1 + calls : 1 + 2 * calls]
    attention = [
        (value * gradient).sum(-1).detach() / max(alpha, 1e-6)
        for value, gradient in zip(values, dv, strict=True)
    ]
    queries = batch.mask[:, None, :, None]
    raw = [
        (
            (gradient * queries if gradient.shape[2] > 1 else gradient).sum(
                2, keepdim=True
            )
            * value
        )
        .sum(-1)
        .detach()
        for value, gradient in zip(values, do, strict=True)
    ]
    at = 1 + 2 * calls
    of_reference = [
        (value * gradient).sum(-1).detach() / max(1 - alpha, 1e-6)
        for value, gradient in zip(others, found[at : at + len(others)], strict=True)
    ]
    return Point(
        scalar.detach(),
        found[0],
        attention,
        raw,
        of_reference,
        [state.detach() for state in states],
        list(found[at + len(others) :]),
    )
