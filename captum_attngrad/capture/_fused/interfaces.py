"""See the kernels that models call through an interface.

Hugging Face models call their attention through a registry of functions. While
attention is recorded, each of them is wrapped. A function that is made of operations
that are seen anyway (``sdpa``) runs as it is; one that is a kernel of its own (flash
attention) is recorded from its arguments, after the convention of the registry.

Flex attention is seen where it is called, but only uncompiled: compiled functions run
as plain Python meanwhile. Uncompiled it holds (queries x keys) scores.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from captum_attngrad._torch import indexing_by_tensors
from captum_attngrad._transformers import attention_registry
from captum_attngrad.capture._fused.kernels import Kernel, Positions
from captum_attngrad.capture._masks import forbidden_scores
from captum_attngrad.capture._surroundings.compiler import uncompiled_code

# What a thread that records does with a call: (name, function, args, kwargs).
Hook = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class _Running(threading.local):
    def __init__(self) -> None:
        self.hooks: list[Hook] = []


running = _Running()


class Interfaces:
    """Wraps the registry while at least one recorder is at work. In threads that record
    nothing a wrapper calls what it wraps, and nothing else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._originals: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}

    @contextlib.contextmanager
    def seen(self) -> Iterator[None]:
        """The registry's functions and flex attention can be seen in this block."""
        with contextlib.ExitStack() as held:
            flex = "torch.nn.attention.flex_attention" in sys.modules
            if flex and uncompiled_code.possible:
                held.enter_context(uncompiled_code.needed())
            held.callback(self._leave)
            self._enter()
            yield

    def _enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            registry = attention_registry()
            if registry is None:
                return
            for name, function in dict(registry).items():
                if name != "sdpa":
                    wrapper = _wrapped(name, function)
                    self._originals[name] = (function, wrapper)
                    registry.register(name, wrapper)

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or not self._originals:
                return
            registry = attention_registry()
            for name, (function, wrapper) in self._originals.items():
                if registry.get(name) is wrapper:  # else registered anew meanwhile
                    registry.register(name, function)
            self._originals.clear()


interfaces = Interfaces()


def _wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not running.hooks:
            return function(*args, **kwargs)
        return running.hooks[-1](name, function, args, kwargs)

    return wrapper


def registry_kernel(name: str, layer: str, given: dict[str, Any]) -> Kernel:
    """Mask and scores of a registered function, from the arguments it was given.

    Its ``attention_mask`` is None, ``(batch, keys)`` with 1 for what is no padding
    (queries that are padding then attend to nothing), or the whole mask in four
    dimensions.
    """
    query: Tensor = given["query"]
    queries, keys = query.shape[2], given["key"].shape[2]
    offset = keys - queries  # the last query is at the last key
    window, softcap = given.get("sliding_window"), given.get("softcap")
    bias: Tensor | None = given.get("position_bias")
    given_mask = given.get("attention_mask")
    mask = given_mask if isinstance(given_mask, Tensor) else None
    if given_mask is not None and (mask is None or mask.dim() not in (2, 4)):
        raise NotImplementedError(
            f"The attention kernel {name!r} of layer {layer!r} was given a mask of "
            f"type {type(given_mask).__name__}, which cannot be read. Use another "
            "attention implementation for the explanation "
            "(model.set_attn_implementation('sdpa') or 'eager')."
        )
    whole = mask is not None and mask.dim() == 4
    causal = given.get("is_causal")
    if causal is None:
        causal = getattr(given["module"], "is_causal", True)

    def allowed(positions: Positions) -> Tensor:
        b, h, q, k = positions
        if mask is not None and whole:
            pairs = mask.expand(*query.shape[:2], queries, -1)[b, h, q, k]
            return pairs if pairs.dtype == torch.bool else ~forbidden_scores(pairs)
        result = torch.ones_like(q + k, dtype=torch.bool)
        if causal:
            result = result & (k <= q + offset)
        if window is not None and keys > window:
            result = result & ((q + offset - k).abs() < window)
        if mask is not None:
            result = result & mask[b, k].bool() & mask[:, -queries:][b, q].bool()
        return result

    def modify(scores: Tensor, positions: Positions) -> Tensor:
        if softcap is not None:
            scores = softcap * (scores / softcap).tanh()
        for added in (bias, mask if whole else None):
            if added is not None and added.dtype != torch.bool:
                added = added.detach().expand(*query.shape[:2], queries, -1)
                scores = scores + added[positions]
        return scores

    return Kernel(name, allowed, modify, given.get("s_aux"))


def flex_kernel(
    score_mod: Callable[..., Tensor], mask_mod: Callable[..., Tensor]
) -> Kernel:
    """Mask and scores of a call of PyTorch's flex attention."""

    def allowed(positions: Positions) -> Tensor:
        return _for_each(mask_mod, *torch.broadcast_tensors(*positions)).bool()

    def modify(scores: Tensor, positions: Positions) -> Tensor:
        indices = (p.expand(scores.shape) for p in positions)
        return _for_each(score_mod, scores, *indices)

    return Kernel("flex_attention", allowed, modify)


def _for_each(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A function of scalars, for every element."""
    with indexing_by_tensors(), torch.no_grad():  # bias[head, query, key]
        result = torch.vmap(function)(*(t.reshape(-1) for t in tensors))
    return result.reshape(tensors[0].shape)
