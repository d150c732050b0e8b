"""Run and record attention that is written out with a softmax."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._anchors import anchored, gradient_source
from captum_attngrad.capture._layout.weighing import Use
from captum_attngrad.capture._masks import forbidden_scores
from captum_attngrad.capture._sites import SoftmaxSite
from captum_attngrad.capture._softmax.followed import Followed
from captum_attngrad.capture._softmax.tracks import Softmax, whole
from captum_attngrad.capture._softmax.written_out import see
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture._thread_recording import ThreadRecording


class SoftmaxAttention:
    """The softmaxes of one thread, and what becomes of their results."""

    def __init__(self, recording: ThreadRecording) -> None:
        self._recording = recording
        # By id of a result of log_softmax: it, its argument and its dimension.
        self._logarithms: dict[int, tuple[weakref.ref[Tensor], Tensor, int]] = {}
        self._followed = Followed(
            self._weighed if recording.intervention.follows else None
        )

    @property
    def lost(self) -> list[tuple[str, str]]:
        """Softmaxes that weighed values after an unknown operation: (layer, it)."""
        return [
            (softmax.layer, softmax.lost or "")
            for softmax in self._followed.lost
            if softmax.keys is None
        ]

    def clear(self) -> None:
        self._followed.clear()
        self._logarithms.clear()

    def softmax(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        scores, dim = _scores_and_dim(args, kwargs)
        weights: Tensor = func(*args, **kwargs)
        if dim is None or not scores.dim() or isinstance(dim, str):
            return weights
        return self._run(scores, weights, dim)

    def saw_log_softmax(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor
    ) -> None:
        scores, dim = _scores_and_dim(args, kwargs)
        if isinstance(dim, int) and scores.dim():
            key, known = id(result), self._logarithms
            gone = weakref.ref(result, lambda _: known.pop(key, None))
            known[key] = (gone, scores, dim)

    def is_log_softmax(self, tensor: Any) -> bool:
        return id(tensor) in self._logarithms

    def exp_of_log_softmax(self, logarithm: Tensor, weights: Tensor) -> Tensor:
        _, scores, dim = self._logarithms[id(logarithm)]
        return self._run(scores, weights, dim)

    def see(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Take note of any other operation, which has just run."""
        for softmax in see(self._followed, func, args, kwargs, result):
            self._add(softmax)

    def _run(self, scores: Tensor, weights: Tensor, dim: int) -> Tensor:
        recording = self._recording
        dim = dim % weights.dim()
        site = SoftmaxSite(recording.next_site(), scores, weights, dim)
        intervention = recording.intervention
        given = intervention.replaced(site)
        if given is None:
            given = intervention.weights(site, weights)
        elif not intervention.follows:
            return given
        returned, source = given, None
        if torch.is_grad_enabled():
            given, returned = anchored(given)
            source = gradient_source(given)
        softmax = Softmax(
            weights.detach(),
            dim,
            scores.detach(),
            self._followed.is_linear_feature(scores, dim),
            source,
            site.index,
            recording.layer,
        )
        self._followed.follow(returned, whole("weights", returned, dim, softmax))
        return returned

    def _weighed(self, softmax: Softmax, values: Tensor, use: Use) -> None:
        self._recording.intervention.weighed(softmax.site_index, values, use)

    def _add(self, softmax: Softmax) -> None:
        """A softmax has turned out to be attention, or to have further keys."""
        recording = self._recording
        if softmax.dropped:
            recording.refuse_dropout()
        assert softmax.keys is not None
        if softmax.call is None:
            assert softmax.scores is not None
            scores = softmax.scores.movedim(softmax.dim, -1)
            forbidden = forbidden_scores(scores).movedim(-1, softmax.dim)
            softmax.scores = None
            softmax.call = SoftmaxCall(
                *recording.where(),
                softmax.site_index,
                softmax.weights,
                softmax.dim,
                forbidden,
                softmax.source,
                softmax.roles,
                softmax.selected,
            )
            recording.add(softmax.call)
        softmax.call.keys = softmax.keys


def _scores_and_dim(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Any]:
    scores = args[0] if args else kwargs["input"]
    return scores, kwargs.get("dim", args[1] if len(args) > 1 else None)
