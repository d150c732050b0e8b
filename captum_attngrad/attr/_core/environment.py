"""The state in which a model can be recorded and differentiated, whatever the caller's
settings are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad._torch import is_compiled, original, own_parameters
from captum_attngrad.capture._surroundings.compiler import uncompiled_code


def uncompiled(forward_func: Any) -> Any:
    """The original of what ``torch.compile`` wrapped: the same function."""
    return original(forward_func)


@contextlib.contextmanager
def not_compiled(modules: list[Module]) -> Iterator[None]:
    """Run those of the modules that are compiled as plain Python. (In this block all
    compiled code of the process runs so, also in other threads.)"""
    compiled = [module for module in modules if is_compiled(module)]
    if not compiled:
        yield
        return
    if not uncompiled_code.possible:
        raise RuntimeError(
            f"{type(compiled[0]).__name__} is compiled with torch.compile, and torch "
            f"{torch.__version__} cannot run it uncompiled (torch 2.6 can). Explain "
            "the original module."
        )
    with uncompiled_code.needed():
        yield


class _WithoutReplicas:
    """The forward method of a module that runs replicas of the model in it, for one
    thread without replicas."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self.threads: list[int] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() in self.threads:
            return self._module.get_submodule("module")(*args, **kwargs)
        return type(self._module).forward(self._module, *args, **kwargs)


@contextlib.contextmanager
def without_replicas(forward_func: Any) -> Iterator[None]:
    """In this thread, nn.DataParallel and its like run the model itself."""
    modules = forward_func.modules() if isinstance(forward_func, Module) else ()
    around = [m for m in modules if [n for n, _ in m.named_children()] == ["module"]]
    here = threading.get_ident()
    with _replicas:
        for module in around:
            alone = module.__dict__.setdefault("forward", _WithoutReplicas(module))
            if isinstance(alone, _WithoutReplicas):
                alone.threads.append(here)
    try:
        yield
    finally:
        with _replicas:
            for module in around:
                alone = module.__dict__["forward"]
                if isinstance(alone, _WithoutReplicas):
                    alone.threads.remove(here)
                    if not alone.threads:
                        del module.__dict__["forward"]


_replicas = threading.Lock()


@contextlib.contextmanager
def gradients_allowed(modules: list[Module]) -> Iterator[None]:
    """Gradients can be taken, also inside the caller's no_grad or inference_mode."""
    with torch.inference_mode(False), torch.enable_grad():
        for module in modules:
            for name, parameter in own_parameters(module).items():
                if parameter is not None and parameter.is_inference():
                    raise RuntimeError(
                        f"The parameter {name!r} of {type(module).__name__} was "
                        "created inside torch.inference_mode(), and autograd refuses "
                        "such tensors. "
                        "Build (or load) the model outside inference_mode; calling "
                        "attribute inside it is fine."
                    )
        yield


def without_inference_tensors(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments that were made in inference mode, as ordinary tensors."""
    return tuple(
        a.clone() if isinstance(a, Tensor) and a.is_inference() else a
        for a in arguments
    )
