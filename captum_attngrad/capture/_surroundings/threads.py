"""Tell whose forward pass is running.

Hooks sit on modules, and modules are shared: every thread that runs the model calls
them. They must act only where somebody explains: in the thread that does, and in the
replicas of the model that this thread makes (``nn.DataParallel`` runs each in a thread
of its own). For everybody else they return at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from types import MethodType
from typing import Any

from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from captum_attngrad._torch import REPLICATE

# Held while hooks are put on or taken off, which torch does not make safe against other
# threads that do so (two hooks may get one number). Never held while a model runs, so
# that explanations do not wait for each other, and threads that only predict for none.
registration = threading.RLock()

_REPLICATE = REPLICATE.name
_MADE_FOR = "_captum_attngrad_made_for"


class Hook:
    """A hook of a module. In copies of the module, and where it is saved, a function
    that does nothing takes its place."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)

    def __reduce__(self) -> tuple[Any, ...]:
        return _hook_of_a_copy, ()


def _hook_of_a_copy() -> Callable[..., None]:
    return _nothing


def _nothing(*_: Any) -> None:
    pass


@contextlib.contextmanager
def hooked(
    register: Callable[..., RemovableHandle], hook: Callable[..., Any], **options: Any
) -> Iterator[None]:
    """A hook of a module that acts in this thread only, while the block runs.

    Args:
        register (Callable): the module's method that registers the hook.
        hook (Callable): the hook.
        **options: of ``register``.
    """
    here = threading.get_ident()

    def hook_here(*given: Any) -> Any:
        return hook(*given) if threading.get_ident() == here else None

    with registration:
        handle = register(Hook(hook_here), **options)
    try:
        yield
    finally:
        with registration:
            handle.remove()


class _Entered(threading.local):
    def __init__(self) -> None:
        self.owners: list[Owner] = []


_entered = _Entered()
_marking: dict[int, tuple[Module, int]] = {}  # by id: the module, for how many owners


class Owner:
    """The thread that enters it, and the replicas that it makes meanwhile."""

    def __init__(self) -> None:
        self._thread: int | None = None
        self._marked: list[Module] = []

    def __enter__(self) -> Owner:
        self._thread = threading.get_ident()
        _entered.owners.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread = None
        if self in _entered.owners:
            _entered.owners.remove(self)
        with registration:
            while self._marked:
                _stop_marking(self._marked.pop())

    def runs(self, module: Module) -> bool:
        """Whether the forward pass of ``module`` that starts or ends in this thread
        belongs to the owner."""
        if threading.get_ident() == self._thread:
            return True
        return self in module.__dict__.get(_MADE_FOR, ())

    def mark_replicas_of(self, modules: Iterable[Module]) -> None:
        """Let replicas of these modules, which the owner is going to make, be known."""
        with registration:
            for module in modules:
                if _start_marking(module):
                    self._marked.append(module)


def _start_marking(module: Module) -> bool:
    """Note on each replica who made it. A replica is a shallow copy, made by a method
    that can be extended for this model alone only on the instance."""
    known = _marking.get(id(module))
    if known is None:
        given = getattr(module.__dict__.get(_REPLICATE), "__func__", None)
        if _REPLICATE in module.__dict__ and given not in (
            _replicate_for_data_parallel,  # of a copy that was made meanwhile
            getattr(type(module), _REPLICATE),  # of a pickle
        ):
            return False  # of another library
        # A copy binds a method to itself, and a pickle has its name and no more.
        module.__dict__[_REPLICATE] = MethodType(_replicate_for_data_parallel, module)
    _marking[id(module)] = (module, 1 if known is None else known[1] + 1)
    return True


def _stop_marking(module: Module) -> None:
    _, owners = _marking.pop(id(module))
    if owners > 1:
        _marking[id(module)] = (module, owners - 1)
    else:
        module.__dict__.pop(_REPLICATE, None)


def _replicate_for_data_parallel(module: Module) -> Any:
    replica = getattr(type(module), _REPLICATE)(module)
    replica.__dict__.pop(_REPLICATE, None)  # bound to the original
    if _entered.owners:
        replica.__dict__[_MADE_FOR] = tuple(_entered.owners)
    return replica
