"""Arguments that a model writes to while it runs, such as a cache of keys."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from torch.nn import Module


def without_writes(argument: Any) -> Any:
    """A copy of an argument that may be written to (where it can be copied)."""
    plain = (Tensor, Module, bool, int, float, str)
    if argument is None or isinstance(argument, plain) or callable(argument):
        return argument
    try:
        return copy.deepcopy(argument)
    except Exception:
        return argument
