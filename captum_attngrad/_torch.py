"""All that is used of PyTorch's private parts.

PyTorch does not promise to keep them. Each is looked up when it is first needed, so
that an upgrade of PyTorch cannot break ``import captum_attngrad``.
"""

from __future__ import annotations

import functools
import pkgutil
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, Parameter


class PrivateName(NamedTuple):
    """
    Where PyTorch has a private name.

    Args:
        where (str): the module, or the module and a class in it.
        name (str): the attribute.
        since (tuple of int): the first version that has it; older versions do without.
    """

    where: str
    name: str
    since: tuple[int, int] = (2, 3)


HIGHER_ORDER = PrivateName("torch._ops", "HigherOrderOperator")
INDEX_BY_TENSORS = PrivateName(
    "torch._dynamo._trace_wrapped_higher_order_op", "TransformGetItemToIndex", (2, 6)
)
SAVED_TENSORS_HOOK = PrivateName(
    "torch._C._autograd", "_top_saved_tensors_default_hooks", (2, 4)
)
SET_GRAD_ENABLED = PrivateName("torch._C", "_set_grad_enabled")
IS_VIEW = PrivateName("torch.Tensor", "_is_view")
VERSION = PrivateName("torch.Tensor", "_version")
REPLICATE = PrivateName("torch.nn.Module", "_replicate_for_data_parallel")
COMPILED_CALL = PrivateName("torch.nn.Module", "_compiled_call_impl")
# Attributes of instances, and what one function asks another.
ORIGINAL_MODULE = "_orig_mod"  # of what torch.compile makes of a module
ORIGINAL_FUNCTION = "_torchdynamo_orig_callable"  # of what it makes of a function
PARAMETERS = "_parameters"  # of a module
ASKS_MODE = "has_torch_function"  # of multi_head_attention_forward

LAST_CHECKED = (2, 14)


@functools.cache
def private(name: PrivateName) -> Any:
    """
    Look up a private name.

    Raises:
        ImportError: if the installed version does not have it.
    """
    try:
        return pkgutil.resolve_name(f"{name.where}.{name.name}")
    except (ImportError, AttributeError) as error:
        raise moved(f"{name.where}.{name.name}") from error


def moved(name: str) -> ImportError:
    """The error where a private name is not found."""
    major, minor = LAST_CHECKED
    return ImportError(
        f"torch {torch.__version__} has no {name}, which captum_attngrad needs. It "
        f"was last found in {major}.{minor}: pip install 'torch<{major}.{minor + 1}'."
    )


def is_higher_order(func: Any) -> bool:
    """Whether an operation takes functions, as flex attention does."""
    return isinstance(func, _higher_order())


@functools.cache  # asked for each operation of a model
def _higher_order() -> type:
    found: type = private(HIGHER_ORDER)
    return found


def is_view(tensor: Tensor) -> bool:
    return tensor._is_view()


def version_of(tensor: Tensor) -> int:
    """Counts changes in place; torch does not for tensors made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def saved_tensors_hook() -> Any:
    """What is done with tensors that autograd saves (torch.autograd.graph). Before
    version 2.4 torch cannot tell; there, a checkpoint makes a tensor that requires a
    gradient."""
    try:
        found = private(SAVED_TENSORS_HOOK)(True)
    except ImportError:
        return None
    return found[0] if found else None


def indexing_by_tensors() -> AbstractContextManager[Any]:
    """Inside ``torch.vmap``, ``table[i]`` works where ``i`` is a tensor."""
    context: AbstractContextManager[Any] = private(INDEX_BY_TENSORS)()
    return context


def original(compiled: Any) -> Any:
    """The original of what ``torch.compile`` wrapped; anything else as it is."""
    module = getattr(compiled, ORIGINAL_MODULE, None)
    if isinstance(module, Module):
        return module
    function = getattr(compiled, ORIGINAL_FUNCTION, None)
    return compiled if function is None else function


def is_compiled(module: Module) -> bool:
    return (
        hasattr(module, ORIGINAL_MODULE)
        or getattr(module, COMPILED_CALL.name, None) is not None
    )


def own_parameters(module: Module) -> dict[str, Parameter | None]:
    """The parameters of a module without those of its children. (The public way takes a
    good part of a small model's forward pass.)"""
    parameters: dict[str, Parameter | None] = getattr(module, PARAMETERS)
    return parameters


@functools.cache
def opened_multi_head_attention() -> Callable[..., Any]:
    """
    ``F.multi_head_attention_forward``, of which a torch function mode sees the inside.

    The original hands itself to the mode before it does anything, so a mode that is
    active while it runs would be asked again and again. This is the same code object,
    with that one question answered "no".

    Raises:
        ImportError: if the installed version asks in another way.
    """
    original = F.multi_head_attention_forward
    code = getattr(original, "__code__", None)
    if code is None or ASKS_MODE not in code.co_names:
        raise moved(f"{ASKS_MODE} in F.multi_head_attention_forward")
    opened = types.FunctionType(
        code,
        {**F.__dict__, ASKS_MODE: lambda _: False},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    opened.__kwdefaults__ = original.__kwdefaults__
    return opened
