"""Whether a score depends on attention whose weights are held."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from captum_attngrad.capture._held import BothRuns
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture.calls import AttentionCall, FusedCall
from captum_attngrad.capture.recorder import AttentionRecord


class HeldCalls:
    """The calls of two runs, to be held in a third, which shows on which of them its
    score depends.

    Args:
        before, after (AttentionRecord): the same calls in both runs.
    """

    def __init__(self, before: AttentionRecord, after: AttentionRecord) -> None:
        self._after = after
        self._watched = [_watched(call) for call in before]
        self.by_place: dict[int, BothRuns] = {
            two.place: (one, two) for one, two in zip(self._watched, after, strict=True)
        }

    def gradients(
        self, score: Tensor, others: Sequence[Tensor]
    ) -> tuple[Tensor | None, ...]:
        """Of the score by ``others``, None where it does not depend on one. The calls
        of the run ``after`` know from now on whether they are on the path."""
        if not score.requires_grad:
            return (None,) * len(others)
        seen = [tensor for call in self._watched for tensor in call.seen]
        found = torch.autograd.grad(score.sum(), [*others, *seen], allow_unused=True)
        of_calls = iter(found[len(others) :])
        for watched, call in zip(self._watched, self._after, strict=True):
            call.set_gradients([next(of_calls) for _ in watched.seen])
        return found[: len(others)]


class _WatchedFused(FusedCall):
    """Keeps what it gives to the third run, which takes gradients."""

    seen: tuple[Tensor, ...]

    def attend(self, value: Tensor) -> Tensor:
        output = super().attend(value)
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self.seen = (output,)
        return output


class _WatchedSoftmax(SoftmaxCall):
    seen: tuple[Tensor, ...]

    @property
    def as_written(self) -> Tensor:
        weights = super().as_written.detach().requires_grad_()
        self.seen = (weights,)
        return weights


def _watched(call: AttentionCall) -> _WatchedFused | _WatchedSoftmax:
    watched = copy(call)
    if isinstance(call, FusedCall):
        watched.__class__ = _WatchedFused
    else:
        watched.__class__ = _WatchedSoftmax
    assert isinstance(watched, (_WatchedFused, _WatchedSoftmax))
    watched.seen = ()
    return watched
