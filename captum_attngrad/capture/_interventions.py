"""What may be done to a model's attention while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_attngrad.capture._anchors import anchored
from captum_attngrad.capture._layout.layout import ExampleDimension
from captum_attngrad.capture._layout.weighing import Use
from captum_attngrad.capture._sites import FusedSite, SoftmaxSite
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture.calls import AttentionCall, FusedCall


class Operation(NamedTuple):
    """
    An operation of the model that is not a recorded attention site.

    Args:
        func (Callable): what is called, as ``__torch_function__`` gets it.
        args, kwargs: its arguments.
        recorded (bool): whether it runs inside one of the recorded layers.
        visible (Callable): makes a context in which operations come to the
            intervention as those of the model do, but are not recorded.
        rest (tuple of Intervention): those that have not seen it yet.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    recorded: bool
    visible: Callable[[], AbstractContextManager[None]]
    rest: tuple[Intervention, ...] = ()

    @property
    def name(self) -> str:
        return getattr(self.func, "__name__", "")

    def with_args(self, *args: Any) -> Operation:
        return self._replace(args=args)

    def run(self) -> Any:
        if self.rest:
            following, *rest = self.rest
            return following.operation(self._replace(rest=tuple(rest)))
        return self.func(*self.args, **self.kwargs)


class Intervention:
    """Does nothing. Subclasses override what they need."""

    #: Whether :meth:`operation` is called.
    sees_operations = False
    #: Whether written-out weights are followed to their values where they are replaced.
    follows = False

    def begin(self) -> None:
        """A forward pass begins."""

    def end(self) -> None:
        """A forward pass has ended, without an error."""

    def operation(self, operation: Operation) -> Any:
        """The result of an operation that is not a recorded attention site."""
        return operation.run()

    def prepared(self, site: FusedSite) -> FusedSite:
        """The site as it is run; it may attend in another way."""
        return site

    def values(self, site: FusedSite, value: Tensor) -> Tensor:
        """The values that are weighed; the call is recorded with its own."""
        return value

    def output(self, site: FusedSite) -> Tensor | None:
        """The output of a call that is not recorded; None: it is recorded."""
        return None

    def weights(self, site: SoftmaxSite, weights: Tensor) -> Tensor:
        """The weights that the model gets; the call is recorded with its own."""
        return weights

    def replaced(self, site: SoftmaxSite) -> Tensor | None:
        """Weights of a call that is not recorded; None: it is recorded."""
        return None

    def weighed(self, index: int, values: Tensor, use: Use) -> None:
        """The weights of a site weighed these values (only if it follows)."""


class Together(Intervention):
    """Several interventions in one forward pass, in their order."""

    def __init__(self, *interventions: Intervention) -> None:
        self._each = interventions
        self._operating = tuple(i for i in interventions if i.sees_operations)
        self.sees_operations = bool(self._operating)
        self.follows = any(i.follows for i in interventions)

    def begin(self) -> None:
        for each in self._each:
            each.begin()

    def end(self) -> None:
        for each in self._each:
            each.end()

    def operation(self, operation: Operation) -> Any:
        return operation._replace(rest=(*self._operating, *operation.rest)).run()

    def prepared(self, site: FusedSite) -> FusedSite:
        for each in self._each:
            site = each.prepared(site)
        return site

    def values(self, site: FusedSite, value: Tensor) -> Tensor:
        for each in self._each:
            value = each.values(site, value)
        return value

    def output(self, site: FusedSite) -> Tensor | None:
        outputs = (each.output(site) for each in self._each)
        return next((output for output in outputs if output is not None), None)

    def weights(self, site: SoftmaxSite, weights: Tensor) -> Tensor:
        for each in self._each:
            weights = each.weights(site, weights)
        return weights

    def replaced(self, site: SoftmaxSite) -> Tensor | None:
        replaced = (each.replaced(site) for each in self._each)
        return next((weights for weights in replaced if weights is not None), None)

    def weighed(self, index: int, values: Tensor, use: Use) -> None:
        for each in self._each:
            each.weighed(index, values, use)


class Scale(Intervention):
    """
    Multiplies the weights at some sites, by one number for each example.

    A scaled call records its weights as they were, and the gradient with respect to
    the scaled ones.

    Args:
        factors (Mapping[int, Tensor]): by site, ``(examples,)``, or ``(1,)`` for all.
        where (Mapping[int, ExampleDimension]): by site, where it has its examples.
    """

    def __init__(
        self, factors: Mapping[int, Tensor], where: Mapping[int, ExampleDimension]
    ) -> None:
        self._factors, self._where = factors, where

    def values(self, site: FusedSite, value: Tensor) -> Tensor:
        # (alpha A) v = A (alpha v): the kernel can stay.
        return self._scaled(site.index, value)

    def weights(self, site: SoftmaxSite, weights: Tensor) -> Tensor:
        return self._scaled(site.index, weights)

    def _scaled(self, index: int, tensor: Tensor) -> Tensor:
        factor = self._factors.get(index)
        if factor is None:
            return tensor
        if factor.numel() == 1:
            return tensor * factor.to(tensor.device, tensor.dtype)
        return tensor * self._where[index].spread(factor, tensor)


class Hold(Intervention):
    """
    Holds the weights at some sites at their mean over two other forward passes. They
    are then constants, and these calls are not recorded.

    Args:
        held (Mapping[int, tuple of AttentionCall]): by site, the call in both passes.

    Attributes:
        given (dict): by site, what the model was given instead of the output or the
            weights. The gradients by these show on which calls a score depends.
    """

    def __init__(self, held: Mapping[int, tuple[AttentionCall, AttentionCall]]) -> None:
        self._held = held
        self.given: dict[int, Tensor] = {}

    def begin(self) -> None:
        self.given.clear()

    def output(self, site: FusedSite) -> Tensor | None:
        if site.index not in self._held:
            return None
        one, two = self._held[site.index]
        assert isinstance(one, FusedCall)
        assert isinstance(two, FusedCall)
        value = site.value
        mean = (one.attend_as_called(value) + two.attend_as_called(value)) / 2
        return self._give(site.index, mean)

    def replaced(self, site: SoftmaxSite) -> Tensor | None:
        if site.index not in self._held:
            return None
        one, two = self._held[site.index]
        assert isinstance(one, SoftmaxCall)
        assert isinstance(two, SoftmaxCall)
        mean = torch.lerp(one.as_written, two.as_written, 0.5)
        return self._give(site.index, mean)

    def _give(self, index: int, tensor: Tensor) -> Tensor:
        self.given[index], returned = anchored(tensor)
        return returned
