"""What may be done at attention calls while the model runs.

Calls are named by their ``place`` among the fused calls and softmaxes of a forward
pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from captum_attngrad.capture._anchors import anchored
from captum_attngrad.capture._layout import ExampleDimension
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture._weighing import Use
from captum_attngrad.capture.calls import AttentionCall, FusedCall

# The same call in both runs.
BothRuns = tuple[AttentionCall, AttentionCall]
Attend = Callable[[Tensor], Tensor]  # the call's output for some values


class Intervention:
    """Does nothing. Subclasses override what they need."""

    #: Whether written-out weights are followed to their values where they are replaced.
    follows = False
    #: Whether attention outside the recorded layers gives 0.
    silent = False

    def values(self, place: int, value: Tensor) -> Tensor:
        """The values of a fused call; the call is recorded as it was."""
        return value

    def weights(self, place: int, weights: Tensor) -> Tensor:
        """Weights that the model has written out; recorded as they were."""
        return weights

    def output(
        self, place: int, query: Tensor, key: Tensor, value: Tensor, attend: Attend
    ) -> Tensor | None:
        """The output of a fused call that is not recorded; None: it is recorded."""
        return None

    def replaced(
        self, place: int, scores: Tensor, weights: Tensor, dim: int
    ) -> Tensor | None:
        """Written-out weights that are not recorded; None: they are recorded."""
        return None

    def weighed(self, place: int, values: Tensor, use: Use) -> None:
        """Values that were weighed with written-out weights (only if it follows)."""


class Scale(Intervention):
    """Multiplies the weights of some calls, one number for each example.

    A scaled call records its weights as they were, and the gradient with respect to
    the scaled ones.

    Args:
        factors (Mapping[int, Tensor]): ``(examples,)``, or ``(1,)`` for all of them.
        where (Mapping[int, ExampleDimension]): where each call has its examples.
    """

    def __init__(
        self, factors: Mapping[int, Tensor], where: Mapping[int, ExampleDimension]
    ) -> None:
        self._factors, self._where = factors, where

    def values(self, place: int, value: Tensor) -> Tensor:
        # (alpha A) v = A (alpha v): the kernel can stay.
        return self._scaled(place, value)

    def weights(self, place: int, weights: Tensor) -> Tensor:
        return self._scaled(place, weights)

    def _scaled(self, place: int, tensor: Tensor) -> Tensor:
        factor = self._factors.get(place)
        if factor is None:
            return tensor
        if factor.numel() == 1:
            return tensor * factor.to(tensor.device, tensor.dtype)
        return tensor * self._where[place].spread(factor, tensor)


class Hold(Intervention):
    """Holds the weights of some calls at their mean over two other runs: they are
    constants, and nothing is recorded of them.

    Attributes:
        given (dict): by place, what the model was given in place of a call's output or
            weights. The gradients by these show on which calls a score depends.
    """

    def __init__(self, held: Mapping[int, BothRuns]) -> None:
        self._held = held
        self.given: dict[int, Tensor] = {}

    def output(
        self, place: int, query: Tensor, key: Tensor, value: Tensor, attend: Attend
    ) -> Tensor | None:
        if place not in self._held:
            return None
        one, two = self._held[place]
        assert isinstance(one, FusedCall)
        assert isinstance(two, FusedCall)
        mean = (one.attend_as_called(value) + two.attend_as_called(value)) / 2
        return self._noted(place, mean)

    def replaced(
        self, place: int, scores: Tensor, weights: Tensor, dim: int
    ) -> Tensor | None:
        if place not in self._held:
            return None
        one, two = self._held[place]
        assert isinstance(one, SoftmaxCall)
        assert isinstance(two, SoftmaxCall)
        return self._noted(place, torch.lerp(one.as_written, two.as_written, 0.5))

    def _noted(self, place: int, tensor: Tensor) -> Tensor:
        self.given[place], returned = anchored(tensor)
        return returned
