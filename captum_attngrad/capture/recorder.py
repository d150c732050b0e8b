"""Record the attention calls that chosen layers make during a forward pass."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

from torch.nn import Module, MultiheadAttention
from torch.utils.hooks import RemovableHandle

from captum_attngrad.capture._fused.interfaces import interfaces
from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture._recording.lazy_graph import LazyGraph
from captum_attngrad.capture._recording.mode import AttentionMode
from captum_attngrad.capture._recording.modules import (
    Named,
    check_layer,
    containing,
    layer_starts,
    named_modules,
)
from captum_attngrad.capture._surroundings.threads import Hook, Owner, registration
from captum_attngrad.capture._surroundings.writes import without_writes
from captum_attngrad.capture._thread_recording import ThreadRecording
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.options import DEFAULT_OPTIONS, CaptureOptions
from captum_attngrad.capture.record import AttentionRecord


class _Frame(NamedTuple):
    """A module that is running."""

    name: str
    starts: tuple[int, ...]  # the recorded layers that begin with it
    within: tuple[int, ...]  # the recorded layers that contain it


class _ThreadState(threading.local):
    """What one thread (one replica of the model) is doing."""

    def __init__(self) -> None:
        self.stack: list[_Frame] = []
        self.recorded = 0  # how many of the stack are in a recorded layer
        self.mode: AttentionMode | None = None
        self.stays_on = False  # the mode, also outside the model


class Recorder:
    """Sets the hooks, keeps one mode per thread and collects the calls.

    Args:
        layers (list of Module): the recorded layers (scopes).
        model (Module, optional): gives the modules their names.
        options (CaptureOptions): how the forward pass runs.

    Attributes:
        graph (LazyGraph): whether laziness did any harm.
    """

    def __init__(
        self,
        layers: Sequence[Module],
        *,
        model: Module | None = None,
        options: CaptureOptions = DEFAULT_OPTIONS,
    ) -> None:
        for layer in layers:
            check_layer(layer)
        self.record = AttentionRecord()
        self.entered: set[int] = set()  # which of the layers have run
        self.threads: list[tuple[str, list[AttentionCall]]] = []
        self.lost: list[tuple[str, str]] = []  # softmaxes: (layer, operation)
        self.called_with: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._modes: list[AttentionMode] = []
        self.layers = list(layers)
        self.model = model
        self._options = options
        self.graph = LazyGraph(options.lazy_graph)
        self._state = _ThreadState()
        self._lock = threading.Lock()
        self._handles: list[RemovableHandle] = []
        self._owner = Owner()
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Recorder:
        with contextlib.ExitStack() as undo:
            undo.enter_context(interfaces.seen())
            undo.enter_context(self._owner)
            modules = list(named_modules(self.layers, self.model))
            # torch's fused inference path decides before it comes to a hook.
            fused = any(isinstance(m, MultiheadAttention) for _, m, _ in modules)
            undo.callback(self._remove_hooks)
            with registration:
                self._hook_all(modules, around=fused)
            undo.callback(self._forget_thread)
            intervention = self._options.intervention or Intervention()
            sees = intervention.sees_operations
            if fused or self._options.lazy_graph or sees:
                self._state.stays_on = True
                self._mode_of_thread().switch_on()
            intervention.begin()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo.close()
        if error is not None:
            self._drop()
        elif self._options.intervention is not None:
            self._options.intervention.end()

    def _forget_thread(self) -> None:
        state = self._state
        if state.mode is not None:
            if state.recorded:
                # Left by something that skips hooks, such as KeyboardInterrupt.
                state.mode.leave()
            state.mode.switch_off()
        state.stack.clear()
        state.recorded = 0
        state.mode = None
        state.stays_on = False

    def _remove_hooks(self) -> None:
        with registration:
            for handle in self._handles:
                handle.remove()
        self._handles.clear()

    def finish(self, device_ids: list[int] | None = None) -> AttentionRecord:
        """The calls in their order, once the forward pass is over. Their layout is not
        known yet."""
        threads = [thread for thread in self.threads if thread[1]]
        if len(threads) > 1:
            threads.sort(key=lambda thread: _replica_order(thread, device_ids))
        self.record.replicas = [list(calls) for _, calls in threads]
        self.lost = list(
            dict.fromkeys(each for mode in self._modes for each in mode.lost)
        )
        self.record.lost = tuple(self.lost)
        self._drop()
        return self.record

    def _drop(self) -> None:
        """Forget the calls, so that no reference cycle keeps their tensors alive."""
        for _, calls in self.threads:
            calls.clear()
        self._modes.clear()

    # -- hooks ------------------------------------------------------------------------

    def _hook_all(self, modules: list[Named], around: bool) -> None:
        starts = layer_starts(self.layers)
        for name, module, within in modules:
            self._hook(module, _Frame(name, starts.get(id(module), ()), within))
        hooked = [module for _, module, _ in modules]
        if around and self.model is not None:
            # A replica is in a thread of its own, and may begin with these.
            outer = containing(self.model, {id(module) for module in hooked})
            for module in outer:
                self._hook(module, _Frame("", (), ()))
            hooked += outer
        self._owner.mark_replicas_of(hooked)
        if self.model is not None:
            self._handles.append(
                self.model.register_forward_pre_hook(
                    Hook(self._keep_arguments), prepend=True, with_kwargs=True
                )
            )

    def _hook(self, module: Module, frame: _Frame) -> None:
        recorded = bool(frame.within)

        def before(module: Module, *_: Any) -> None:
            if not self._owner.runs(module):
                return
            state = self._state
            self.entered.update(frame.starts)
            # A replica of an inner module may be the first to run in its thread, so
            # that any module may have to switch the mode on.
            mode = self._mode_of_thread()
            if not recorded:
                mode.switch_on()
            elif not state.recorded:
                mode.enter()
            state.stack.append(frame)
            state.recorded += recorded

        def after(module: Module, *_: Any) -> None:
            state = self._state
            if not self._owner.runs(module) or not state.stack:
                return
            if state.stack[-1] is not frame or state.mode is None:
                return
            state.stack.pop()
            state.recorded -= recorded
            if recorded and not state.recorded:
                state.mode.leave()
            if not state.stack and not state.stays_on:
                state.mode.switch_off()

        pre, post = Hook(before), Hook(after)
        self._handles.append(module.register_forward_pre_hook(pre, prepend=True))
        self._handles.append(module.register_forward_hook(post, always_call=True))

    def _mode_of_thread(self) -> AttentionMode:
        """The mode of this thread."""
        state = self._state
        if state.mode is None:
            calls: list[AttentionCall] = []
            recording = ThreadRecording(calls.append, self._layer, self._options)
            state.mode = AttentionMode(recording, self.graph)
            with self._lock:
                if self.threads:
                    self.graph.start()  # in a replica, and for what joins the replicas
                self.threads.append((threading.current_thread().name, calls))
                self._modes.append(state.mode)
        return state.mode

    def _layer(self) -> tuple[str, tuple[int, ...]]:
        stack = [frame for frame in self._state.stack if frame.within]
        scopes = {scope for frame in stack for scope in frame.starts}
        if not scopes:
            # A replica in a thread of its own, whose outer modules run in another.
            scopes = set(stack[0].within)
        return stack[-1].name, tuple(sorted(scopes))

    def _keep_arguments(self, module: Module, args: Any, *more: Any) -> None:
        # While the hook is put on or taken off, other threads may call it without
        # the keyword arguments.
        if self.called_with is None and self._owner.runs(module):
            (kwargs,) = more
            # As they were before the model wrote to them.
            self.called_with = (
                tuple(map(without_writes, args)),
                {name: without_writes(value) for name, value in kwargs.items()},
            )


def _replica_order(
    thread: tuple[str, list[AttentionCall]], device_ids: list[int] | None
) -> tuple[int, int]:
    """Replicas hold the examples in the order of their devices. On one device they do
    so in the order in which their threads were started, which Python numbers."""
    name, calls = thread
    device = calls[0].device
    order = -1 if device.type == "cpu" else device.index
    if device_ids is not None and order in device_ids:
        order = device_ids.index(order)
    number = re.search(r"\d+", name)
    return order, int(number.group()) if number else -1
