"""Where a recurrent decoder puts the outputs of its steps together.

A decoder that runs step by step ends in one tensor for all outputs: by ``stack`` or
``cat`` of one part per step, or by writing each into its place. What comes after (the
classifier, most often) sees each position by itself. From the parts down, autograd can
be asked for one step at a time.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_JOINS = frozenset("stack cat concat concatenate hstack vstack".split())


class OutputParts(TorchFunctionMode):
    """Sees the parts that ``length`` outputs are put together from.

    Each is replaced by a view that nothing else uses: its gradient is that of what
    comes after, without what later steps make of the same tensor.

    Attributes:
        found (list of lists of Tensor): one tensor per output, for each such place.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length
        self._joined: list[list[Tensor]] = []
        self._written: dict[int, tuple[weakref.ref[Tensor], list[Tensor]]] = {}

    @property
    def found(self) -> list[list[Tensor]]:
        written = [parts for _, parts in self._written.values()]
        return self._joined + [p for p in written if len(p) == self._length]

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if torch.is_grad_enabled():
            name = getattr(func, "__name__", "")
            if name in _JOINS and args and self._are_outputs(args[0]):
                parts = [part.view_as(part) for part in args[0]]
                self._joined.append(parts)
                args = (parts, *args[1:])
            elif name == "__setitem__" and len(args) == 3 and _in_graph(args[2]):
                part = args[2].view_as(args[2])
                self._parts_of(args[0]).append(part)
                args = (*args[:2], part)
        return func(*args, **(kwargs or {}))

    def _are_outputs(self, parts: Any) -> bool:
        return (
            isinstance(parts, (list, tuple))
            and len(parts) == self._length
            and all(_in_graph(part) for part in parts)
        )

    def _parts_of(self, whole: Tensor) -> list[Tensor]:
        reference, parts = self._written.get(id(whole), (None, []))
        if reference is None or reference() is not whole:
            parts = []
            self._written[id(whole)] = (weakref.ref(whole), parts)
        return parts


def _in_graph(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.requires_grad and not tensor.is_leaf
