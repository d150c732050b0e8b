"""The torch function mode that sees attention calls as they are made."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_attngrad._torch import is_higher_order, opened_multi_head_attention
from captum_attngrad._transformers import REGISTRY_ARGUMENTS
from captum_attngrad.capture._anchors import anchored, gradient_source, own
from captum_attngrad.capture._interfaces import (
    flex_kernel,
    registry_kernel,
    running,
)
from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture._kernels import Kernel, KernelCall
from captum_attngrad.capture._lazy_graph import LazyGraph
from captum_attngrad.capture._masks import forbidden_scores
from captum_attngrad.capture._operations import EXP, LOG_SOFTMAX, SOFTMAX
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture._tracks import Softmax
from captum_attngrad.capture._unused_rows import attend_skipping_unused
from captum_attngrad.capture._weighing import Use
from captum_attngrad.capture._written_out import WrittenOutAttention
from captum_attngrad.capture.calls import AttentionCall, FusedCall
from captum_attngrad.capture.options import CaptureOptions


class AttentionMode(TorchFunctionMode):
    """Sees the operations of one thread while one of the recorded layers runs.

    Args:
        add (Callable): takes each finished :class:`AttentionCall`.
        where (Callable): names the innermost module that is running, and which of
            the recorded layers it is in.
        lazy_graph (LazyGraph): leaves out of the graph what comes before the first
            attention call.
        options (CaptureOptions): how the forward pass runs.
    """

    def __init__(
        self,
        add: Callable[[AttentionCall], None],
        where: Callable[[], tuple[str, tuple[int, ...]]],
        lazy_graph: LazyGraph,
        options: CaptureOptions,
    ) -> None:
        super().__init__()
        self._calls = 0
        self._on = False
        self._recording = False
        self._add_call = add
        self._where = where
        self._lazy_graph = lazy_graph
        self._options = options
        self._intervention = options.intervention or Intervention()
        self._places = 0
        self._log_softmax: dict[int, tuple[weakref.ref[Tensor], Tensor, int]] = {}
        self._written_out = WrittenOutAttention(
            self._weighed if self._intervention.follows else None
        )

    def switch_on(self) -> None:
        """See this thread's operations. Outside the recorded layers they run as they
        are, but for what a lazy graph leaves out; nn.MultiheadAttention and
        nn.TransformerEncoder do not take their fused inference path meanwhile."""
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
        self._recording = True
        running.hooks.append(self._through_registry)

    def leave(self) -> None:
        """The outermost recorded layer has finished."""
        self._recording = False
        running.hooks.pop()
        self._written_out.clear()
        self._log_softmax.clear()

    @property
    def lost(self) -> list[tuple[str, str]]:
        """Softmaxes that weighed values after an unknown operation: (layer, it)."""
        return [
            (softmax.layer, softmax.lost or "")
            for softmax in self._written_out.lost
            if softmax.keys is None
        ]

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self._recording:
            if self._intervention.silent:
                return self._silenced(func, args, kwargs)
            return self._lazy_graph.run(func, args, kwargs)
        if func is F.scaled_dot_product_attention:
            self._lazy_graph.start()
            return self._fused(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return opened_multi_head_attention()(*args, **kwargs)
        if is_higher_order(func):
            if func.__name__ == "flex_attention":
                self._lazy_graph.start()
                return self._flex(func, *args, **kwargs)
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in SOFTMAX:
            self._lazy_graph.start()
            return self._softmax(func, args, kwargs)
        if name in EXP and args and id(args[0]) in self._log_softmax:
            self._lazy_graph.start()
            return self._exp_of_log_softmax(func, args[0])
        result = self._lazy_graph.run(func, args, kwargs)
        if name in LOG_SOFTMAX:
            self._note_log_softmax(args, kwargs, result)
        for softmax in self._written_out.see(func, args, kwargs, result):
            self._add_written_out(softmax)
        return result

    def _silenced(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """An operation outside the recorded layers, where attention is switched off
        too, as far as it can be told from other softmaxes by its shape."""
        if func is F.multi_head_attention_forward:
            with self:
                return opened_multi_head_attention()(*args, **kwargs)
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return torch.zeros_like(result)
        if getattr(func, "__name__", "") in SOFTMAX and isinstance(result, Tensor):
            dims = result.dim()
            square = dims == 3 and result.shape[-1] == result.shape[-2]
            return torch.zeros_like(result) if dims > 3 or square else result
        return result

    def _next_place(self) -> int:
        """Numbers the fused calls and softmaxes as they come, attention or not, so
        that one call has the same number in every forward pass."""
        self._places += 1
        return self._places - 1

    def _add(self, call: AttentionCall) -> None:
        self._calls += 1
        self._add_call(call)

    # -- scaled dot-product attention -------------------------------------------------

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if dropout_p > 0:
            self._refuse_dropout()
        if any(t.is_nested for t in (query, key, value)):
            raise NotImplementedError(
                f"Layer {self._where()[0]!r} calls scaled_dot_product_attention on "
                "nested tensors, which cannot be recorded. Pass padded tensors and a "
                "mask (nn.TransformerEncoder: enable_nested_tensor=False)."
            )
        if enable_gqa and key.shape[-3] != query.shape[-3]:
            # One key and value head per query head, so that each has its own scores.
            groups = query.shape[-3] // key.shape[-3]
            key = key.repeat_interleave(groups, dim=-3)
            value = value.repeat_interleave(groups, dim=-3)
        lead = torch.broadcast_shapes(*(t.shape[:-2] for t in (query, key, value)))
        query, key, value = (
            t if t.shape[:-2] == lead else t.expand(*lead, *t.shape[-2:])
            for t in (query, key, value)
        )
        place = self._next_place()

        def attend(value: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=attn_mask,
                dropout_p=dropout_p,
                is_causal=is_causal,
                scale=scale,
            )

        replaced = self._intervention.output(place, query, key, value, attend)
        if replaced is not None:
            return replaced
        weighed = self._intervention.values(place, value)
        sources: tuple[Any, ...] = ()
        value_sources: tuple[Any, ...] = ()
        if self._options.value_gradients and torch.is_grad_enabled():
            # A tensor that only this call uses: its gradient is dv *through* it.
            weighed = own(weighed)
            value_sources = (gradient_source(weighed),)
        if self._options.skip_unused_rows and dropout_p == 0:
            output = attend_skipping_unused(
                query, key, weighed, attn_mask, is_causal, scale
            )
        else:
            output = attend(weighed)
        returned = output
        if torch.is_grad_enabled():
            output, returned = anchored(output)
            sources = (gradient_source(output), *value_sources)
        call = FusedCall(
            *self._where(),
            query,
            key,
            value,
            attn_mask,
            is_causal,
            scale,
            output,
            sources,
        )
        call.place = place
        self._add(call)
        return returned

    # -- other kernels ----------------------------------------------------------------

    def _flex(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        score_mod: Any,
        block_mask: tuple[Any, ...],
        scale: float,
        *rest: Any,
    ) -> Any:
        def run(value: Tensor) -> tuple[Tensor, Any]:
            output, *others = func(
                query, key, value, score_mod, block_mask, scale, *rest
            )
            return output, others

        def describe() -> Kernel:
            return flex_kernel(score_mod, block_mask[-1])

        output, others = self._kernel(describe, query, key, value, scale, run)
        return (output, *others)

    def _through_registry(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A function of transformers' attention registry is called."""
        self._lazy_graph.start()
        given = dict(zip(REGISTRY_ARGUMENTS, args, strict=False)) | kwargs
        before = self._calls
        seen = False

        def run(value: Tensor) -> tuple[Tensor, Any]:
            nonlocal seen
            if "value" in kwargs:
                result = function(*args, **(kwargs | {"value": value}))
            else:
                result = function(*args[:3], value, *args[4:], **kwargs)
            seen = self._calls > before
            return result[0].transpose(1, 2), result

        def describe() -> Kernel | None:
            if seen:
                return None
            if given.get("dropout", 0) > 0:
                self._refuse_dropout()
            return registry_kernel(name, self._where()[0], given)

        query, key, value = (given[name] for name in ("query", "key", "value"))
        output, result = self._kernel(
            describe, query, key, value, given.get("scaling"), run
        )
        if seen:  # it is made of operations that this mode has recorded
            if given.get("s_aux") is not None and name == "flex_attention":
                raise NotImplementedError(
                    f"Layer {self._where()[0]!r} puts an attention sink behind flex "
                    "attention, and the weights that result are unknown. Use "
                    "model.set_attn_implementation('eager') for the explanation."
                )
            return result
        return (output.transpose(1, 2), *result[1:])

    def _kernel(
        self,
        describe: Callable[[], Kernel | None],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None,
        run: Callable[[Tensor], tuple[Tensor, Any]],
    ) -> tuple[Tensor, Any]:
        """Run a kernel that is seen from outside, and record what it is described as
        (None: not at all)."""
        place = self._next_place()
        others: Any = None

        def attend(value: Tensor) -> Tensor:
            nonlocal others
            output, others = run(value)
            return output

        replaced = self._intervention.output(place, query, key, value, attend)
        if replaced is not None:
            if others is None:
                attend(value)
            describe()
            return replaced, others
        weighed = self._intervention.values(place, value)
        scaled = weighed is not value
        sources: tuple[Any, ...] = ()
        record_value = self._options.value_gradients and torch.is_grad_enabled()
        if record_value:
            weighed = own(weighed)
        output = attend(weighed)
        kernel = describe()
        if kernel is None:
            return output, others
        returned = output
        if torch.is_grad_enabled():
            if weighed.requires_grad and not output.requires_grad:
                raise RuntimeError(
                    f"The attention kernel {kernel.name!r} of layer "
                    f"{self._where()[0]!r} has no backward pass, so nothing that "
                    "comes before it can be explained. Use another attention "
                    "implementation (Hugging Face: "
                    "model.set_attn_implementation('sdpa'))."
                )
            output, returned = anchored(output)
            sources = (gradient_source(output),)
            if record_value:
                sources = (*sources, gradient_source(weighed))
        call = KernelCall(
            *self._where(),
            query,
            key,
            value,
            kernel,
            scale,
            output,
            sources,
            check=not scaled,
        )
        call.place = place
        self._add(call)
        return returned, others

    # -- softmax written out ----------------------------------------------------------

    def _softmax(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scores = args[0] if args else kwargs["input"]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        weights = func(*args, **kwargs)
        if dim is None or not scores.dim() or isinstance(dim, str):
            return weights
        return self._weights(scores, weights, dim)

    def _note_log_softmax(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        scores = args[0] if args else kwargs["input"]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if isinstance(dim, int) and scores.dim():
            key, known = id(result), self._log_softmax
            gone = weakref.ref(result, lambda _: known.pop(key, None))
            known[key] = (gone, scores, dim)

    def _exp_of_log_softmax(self, func: Any, logarithm: Tensor) -> Tensor:
        _, scores, dim = self._log_softmax[id(logarithm)]
        return self._weights(scores, func(logarithm), dim)

    def _weights(self, scores: Tensor, weights: Tensor, dim: int) -> Tensor:
        """A softmax was computed: what may be attention weights."""
        place = self._next_place()
        dim = dim % weights.dim()
        intervention = self._intervention
        replaced = intervention.replaced(place, scores, weights, dim)
        if replaced is not None and not intervention.follows:
            return replaced
        scaled = intervention.weights(place, weights) if replaced is None else replaced
        returned, source = scaled, None
        if torch.is_grad_enabled():
            scaled, returned = anchored(scaled)
            source = gradient_source(scaled)
        softmax = Softmax(
            weights.detach(),
            dim,
            scores.detach(),
            self._written_out.is_linear_feature(scores, dim),
            source,
            place,
            self._where()[0],
        )
        self._written_out.started(returned, softmax)
        return returned

    def _weighed(self, softmax: Softmax, values: Tensor, use: Use) -> None:
        self._intervention.weighed(softmax.place, values, use)

    def _add_written_out(self, softmax: Softmax) -> None:
        if softmax.dropped:
            self._refuse_dropout()
        assert softmax.keys is not None
        if softmax.call is not None:
            softmax.call.keys = softmax.keys
            return
        assert softmax.scores is not None
        scores = softmax.scores.movedim(softmax.dim, -1)
        forbidden = forbidden_scores(scores).movedim(-1, softmax.dim)
        softmax.scores = None
        softmax.call = SoftmaxCall(
            *self._where(),
            softmax.weights,
            softmax.dim,
            forbidden,
            softmax.source,
            softmax.roles,
            softmax.selected,
        )
        softmax.call.keys = softmax.keys
        softmax.call.place = softmax.place
        self._add(softmax.call)

    def _refuse_dropout(self) -> None:
        if self._options.allow_dropout:
            return
        raise RuntimeError(
            f"Attention dropout is active in layer {self._where()[0]!r}: the attention "
            "weights that are explained would be random. Call model.eval() first."
        )
