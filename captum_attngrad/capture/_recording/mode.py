"""The one torch function mode: it sees the operations of a model as they are made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from captum_attngrad._torch import is_higher_order, opened_multi_head_attention
from captum_attngrad.capture._fused.attention import FusedAttention
from captum_attngrad.capture._fused.interfaces import running
from captum_attngrad.capture._interventions import Operation
from captum_attngrad.capture._recording.lazy_graph import LazyGraph
from captum_attngrad.capture._softmax.attention import SoftmaxAttention
from captum_attngrad.capture._softmax.operations import EXP, LOG_SOFTMAX, SOFTMAX
from captum_attngrad.capture._thread_recording import ThreadRecording


class AttentionMode(TorchFunctionMode):
    """
    Sees the operations of one thread: records those that attend in the recorded layers,
    and lets the intervention act.

    Args:
        recording (ThreadRecording): takes the calls.
        lazy_graph (LazyGraph): leaves out of the graph what comes before the first
            attention call.
    """

    def __init__(self, recording: ThreadRecording, lazy_graph: LazyGraph) -> None:
        super().__init__()
        self._on = False
        self._recorded = False  # whether a recorded layer is running
        self._lazy_graph = lazy_graph
        self._intervention = recording.intervention
        self._sees_operations = recording.intervention.sees_operations
        self._fused = FusedAttention(recording)
        self._softmaxes = SoftmaxAttention(recording)

    def switch_on(self) -> None:
        """See this thread's operations. nn.MultiheadAttention and nn.TransformerEncoder
        do not take their fused inference path meanwhile."""
        if not self._on:
            self.__enter__()  # type: ignore[no-untyped-call]
            self._on = True

    def switch_off(self) -> None:
        if self._on:
            self._on = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def enter(self) -> None:
        """A recorded layer starts."""
        self.switch_on()
        self._recorded = True
        running.hooks.append(self._registered)

    def leave(self) -> None:
        """The outermost recorded layer has finished."""
        self._recorded = False
        running.hooks.pop()
        self._softmaxes.clear()

    @property
    def lost(self) -> list[tuple[str, str]]:
        """Softmaxes that weighed values after an unknown operation: (layer, it)."""
        return self._softmaxes.lost

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        opens = self._recorded or self._sees_operations
        if opens and func is F.multi_head_attention_forward:
            with self:
                return opened_multi_head_attention()(*args, **kwargs)
        if not self._recorded:
            return self._run(func, args, kwargs)
        if func is F.scaled_dot_product_attention:
            self._lazy_graph.start()
            return self._fused.scaled_dot_product(*args, **kwargs)
        if is_higher_order(func):
            if func.__name__ == "flex_attention":
                self._lazy_graph.start()
                return self._fused.flex(func, *args, **kwargs)
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in SOFTMAX:
            self._lazy_graph.start()
            return self._softmaxes.softmax(func, args, kwargs)
        if name in EXP and args and self._softmaxes.is_log_softmax(args[0]):
            self._lazy_graph.start()
            weights = self._run(func, args[:1], {})
            return self._softmaxes.exp_of_log_softmax(args[0], weights)
        result = self._run(func, args, kwargs)
        if name in LOG_SOFTMAX:
            self._softmaxes.saw_log_softmax(args, kwargs, result)
        self._softmaxes.see(func, args, kwargs, result)
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation that does not attend in a recorded layer."""
        if self._lazy_graph.leaves_out(func, args, kwargs):
            with self._lazy_graph.no_grad:
                return func(*args, **kwargs)
        if not self._sees_operations:
            return func(*args, **kwargs)
        operation = Operation(func, args, kwargs, self._recorded, self._visible)
        return self._intervention.operation(operation)

    @contextlib.contextmanager
    def _visible(self) -> Iterator[None]:
        """Operations of an intervention itself come to it as those of the model do."""
        recorded, self._recorded = self._recorded, False
        try:
            with self:
                yield
        finally:
            self._recorded = recorded

    def _registered(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A function of transformers' attention registry is called."""
        self._lazy_graph.start()
        return self._fused.registered(name, function, args, kwargs)
