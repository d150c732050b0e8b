"""The truth for models that write attention out: what their softmaxes return."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _Softmaxes(TorchFunctionMode):
    """Keeps the results of softmaxes, with the module that was running."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[nn.Module] = []
        self.found: list[tuple[nn.Module, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "softmax" and self.running:
            if not result.requires_grad:
                result.requires_grad_()
            self.found.append((self.running[-1], result))
        return result


@contextlib.contextmanager
def _hooked(mode: _Softmaxes, modules: list[nn.Module]) -> Iterator[None]:
    def before(module: nn.Module, _: Any) -> None:
        mode.running.append(module)

    def after(module: nn.Module, _: Any, __: Any) -> None:
        mode.running.pop()

    with contextlib.ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(before).remove)
            hooks.callback(module.register_forward_hook(after).remove)
        yield


def softmax_weights(
    modules: list[nn.Module], score: Callable[[], Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """For each softmax in the modules its result and the gradient by it."""
    mode = _Softmaxes()
    with mode, _hooked(mode, modules):
        total = score().sum()
    weights = [w for _, w in mode.found]
    gradients = torch.autograd.grad(total, weights)
    return [(w.detach(), g) for w, g in zip(weights, gradients, strict=True)]
