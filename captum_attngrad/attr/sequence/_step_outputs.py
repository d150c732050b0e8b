"""Where a recurrent decoder joins the outputs of its steps.

A decoder that runs step by step ends in one tensor for all outputs: it joins one tensor
per step by ``stack`` or ``cat``, or writes each into a larger one. What comes after
(the classifier, most often) treats each position by itself. Below the outputs of the
steps, autograd can be asked for one step at a time.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._interventions import Intervention, Operation

_JOINS = frozenset("stack cat concat concatenate hstack vstack".split())


class StepOutputs(Intervention):
    """
    Finds the outputs of ``length`` steps where they are joined.

    Each is replaced by a view that nothing else uses: its gradient is that of what
    comes after, without what later steps make of the same tensor.

    Attributes:
        found (list of lists of Tensor): for each such join, one tensor per step.
    """

    sees_operations = True

    def __init__(self, length: int) -> None:
        self._length = length
        self.begin()

    def begin(self) -> None:
        self._joined: list[list[Tensor]] = []
        self._written: dict[int, tuple[weakref.ref[Tensor], list[Tensor]]] = {}

    @property
    def found(self) -> list[list[Tensor]]:
        written = [steps for _, steps in self._written.values()]
        return self._joined + [w for w in written if len(w) == self._length]

    def operation(self, operation: Operation) -> Any:
        args = operation.args
        if torch.is_grad_enabled():
            name = operation.name
            if name in _JOINS and args and self._are_steps(args[0]):
                steps = [step.view_as(step) for step in args[0]]
                self._joined.append(steps)
                args = (steps, *args[1:])
            elif name == "__setitem__" and len(args) == 3 and _in_graph(args[2]):
                step = args[2].view_as(args[2])
                self._steps_of(args[0]).append(step)
                args = (*args[:2], step)
        return operation.with_args(*args).run()

    def _are_steps(self, joined: Any) -> bool:
        return (
            isinstance(joined, (list, tuple))
            and len(joined) == self._length
            and all(_in_graph(step) for step in joined)
        )

    def _steps_of(self, whole: Tensor) -> list[Tensor]:
        reference, steps = self._written.get(id(whole), (None, []))
        if reference is None or reference() is not whole:
            steps = []
            self._written[id(whole)] = (weakref.ref(whole), steps)
        return steps


def _in_graph(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.requires_grad and not tensor.is_leaf
