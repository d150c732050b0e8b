"""Run a model so that it can be recorded and differentiated, whatever the caller's
settings are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad.capture._compiler import uncompiled_code


def uncompiled(forward_func: Any) -> Any:
    """The original of what ``torch.compile`` wrapped: the same function."""
    original = getattr(forward_func, "_orig_mod", None)
    if isinstance(original, Module):
        return original
    original = getattr(forward_func, "_torchdynamo_orig_callable", None)
    return forward_func if original is None else original


@contextlib.contextmanager
def not_compiled(modules: list[Module]) -> Iterator[None]:
    """Run those of the modules that are compiled as plain Python. (In this block all
    compiled code of the process runs so, also in other threads.)"""
    compiled = [
        module
        for module in modules
        if hasattr(module, "_orig_mod")
        or getattr(module, "_compiled_call_impl", None) is not None
    ]
    if not compiled:
        yield
        return
    if not uncompiled_code.possible:
        raise RuntimeError(
            f"{type(compiled[0]).__name__} is compiled with torch.compile, and torch "
            f"{torch.__version__} cannot run it uncompiled for a while (torch 2.6 can)."
            " Explain the original module."
        )
    with uncompiled_code.needed():
        yield


@contextlib.contextmanager
def gradients_allowed(modules: list[Module]) -> Iterator[None]:
    """Gradients can be taken, also inside the caller's no_grad or inference_mode."""
    with torch.inference_mode(False), torch.enable_grad():
        for module in modules:
            # named_parameters() takes a good part of a small model's forward pass.
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.is_inference():
                    raise RuntimeError(
                        f"The parameter {name!r} of {type(module).__name__} was "
                        "created inside torch.inference_mode(), and autograd refuses "
                        "such tensors. "
                        "Build (or load) the model outside inference_mode; calling "
                        "attribute inside it is fine."
                    )
        yield


def usable(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments that were made in inference mode, as ordinary tensors."""
    return tuple(
        a.clone() if isinstance(a, Tensor) and a.is_inference() else a
        for a in arguments
    )
