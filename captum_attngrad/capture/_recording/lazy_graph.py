"""Leave out of autograd's graph what comes before the first attention call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from captum_attngrad._torch import SET_GRAD_ENABLED, is_higher_order, saved_tensors_hook

_AUTOGRAD = (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward)
# Not without autograd: what sets grad mode, and attributes, for speed. (A function of
# a higher-order operator may hold attention.)
_PLAIN = ("__get__", SET_GRAD_ENABLED.name)


class LazyGraph:
    """Nothing that runs before the first attention call depends on attention weights,
    and a graph of it would only cost time and memory.

    Each operation is run without autograd on its own, and grad mode stays what the
    caller and the model make it. So nothing needs to be switched on at the first
    attention call, which may be inside a block of the model's (``no_grad``,
    ``enable_grad``) that restores grad mode at its end.

    Args:
        lazy (bool): whether to do so at all.

    Attributes:
        no_grad (torch.no_grad): the context for operations that are left out.
        autograd_used (bool): the model itself used autograd, whose result may be wrong,
            since part of the graph was left out.
    """

    def __init__(self, lazy: bool) -> None:
        self._lazy = lazy
        self._waiting = lazy
        self.no_grad = torch.no_grad()  # making one takes longer than entering it
        self._saving = saved_tensors_hook()
        self.autograd_used = False

    def start(self) -> None:
        """From here on there is a graph."""
        if self._waiting and saved_tensors_hook() is not self._saving:
            # In a block of torch.utils.checkpoint, whose beginning has been left out
            # now, and would not be when it runs once more for the backward pass.
            self.autograd_used = True
        self._waiting = False

    def leaves_out(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Whether an operation is to run in :attr:`no_grad`."""
        if not self._lazy:
            return False
        if func in _AUTOGRAD:
            self.autograd_used = True
        if not self._waiting or not torch.is_grad_enabled():
            return False
        name = getattr(func, "__name__", "")
        if _wants_autograd(name, args, kwargs):
            self.start()
            return False
        return name not in _PLAIN and not is_higher_order(func)


def _wants_autograd(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the model asks for a graph, where grad mode is on anyway: it may be going
    to use it."""
    if name == SET_GRAD_ENABLED.name:
        return bool(args[0])
    return name == "requires_grad_" or bool(kwargs.get("requires_grad"))
