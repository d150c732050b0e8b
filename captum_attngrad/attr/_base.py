"""What the attention attributions have in common: run, record, differentiate."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from captum._utils.common import _format_additional_forward_args, _format_inputs
from captum._utils.typing import TargetType
from captum.attr import LayerAttribution
from captum.attr._utils.attribution import GradientAttribution
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._heads import Heads, checked_heads
from captum_attngrad.attr._running import (
    gradients_allowed,
    not_compiled,
    uncompiled,
    usable,
)
from captum_attngrad.attr._target import (
    LossFunction,
    loss_scores,
    output_tensor,
    target_scores,
)
from captum_attngrad.capture._held import BothRuns
from captum_attngrad.capture.find import find_attention_layers
from captum_attngrad.capture.recorder import AttentionRecord, Recorder

Inputs = Tensor | tuple[Tensor, ...]
Factors = Mapping[int, Tensor]


class AttentionAttribution(LayerAttribution):
    """Base of all attributions here: which layers, which heads, and one recorded
    forward pass."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        heads: Heads = None,
    ) -> None:
        if layer is None and not isinstance(forward_func, Module):
            name = getattr(forward_func, "__name__", type(forward_func).__name__)
            raise ValueError(
                f"layer is None, and forward_func ({name}) is not a torch.nn.Module, "
                "so its attention layers cannot be found. Pass the model itself as "
                "forward_func, or the attention modules as layer."
            )
        LayerAttribution.__init__(
            self,
            forward_func,
            layer,  # type: ignore[type-var]  # Captum knows no None here
            device_ids,
        )
        self._heads = checked_heads(heads)

    def _layers(self) -> list[Module]:
        if self.layer is None:
            return [uncompiled(self.forward_func)]
        layers = self.layer if isinstance(self.layer, (list, tuple)) else [self.layer]
        if not layers:
            raise ValueError("layer is an empty list: pass the attention modules.")
        return [uncompiled(layer) for layer in layers]

    def _record_forward(
        self, inputs: Inputs, additional_forward_args: object | None
    ) -> AttentionRecord:
        """One forward pass without autograd; the recorded calls have no gradients."""
        with self._running(inputs, additional_forward_args) as (layers, arguments):
            recorder = self._recorder(layers, arguments)
            with torch.no_grad(), recorder:
                uncompiled(self.forward_func)(*arguments)
            return self._finished(recorder, layers, arguments)

    @contextlib.contextmanager
    def _running(
        self, inputs: Inputs, additional_forward_args: object | None
    ) -> Iterator[tuple[list[Module], tuple[Any, ...]]]:
        """The recorded layers and the arguments of forward_func, in a state in which
        it can be run and differentiated."""
        forward_func = uncompiled(self.forward_func)
        layers = self._layers()
        arguments = (
            *_format_inputs(inputs),
            *(_format_additional_forward_args(additional_forward_args) or ()),
        )
        tops = [forward_func] if isinstance(forward_func, Module) else layers
        modules = [module for top in tops for module in top.modules()]
        with gradients_allowed(modules), not_compiled(modules):
            yield layers, usable(arguments)

    def _recorder(
        self,
        layers: list[Module],
        arguments: tuple[Any, ...],
        *,
        value_gradients: bool = False,
        lazy: bool = False,
        factors: Factors | None = None,
        held: Mapping[int, BothRuns] | None = None,
        backward_passes: bool = False,
    ) -> Recorder:
        """``backward_passes``: there will be several of them, or one with a batch of
        cotangents."""
        forward_func = uncompiled(self.forward_func)
        return Recorder(
            layers,
            model=forward_func if isinstance(forward_func, Module) else None,
            batch_size=len(arguments[0]),
            value_gradients=value_gradients,
            lazy_graph=lazy,
            skip_unused_rows=not backward_passes,
            factors=factors,
            held=held,
        )

    def _finished(
        self, recorder: Recorder, layers: list[Module], arguments: tuple[Any, ...]
    ) -> AttentionRecord:
        examples = len(arguments[0])
        record = recorder.finish(examples, self._device_ids())
        self._check_found(recorder, record, layers, arguments)
        _check_batch(record, examples)
        return record

    def _device_ids(self) -> list[int] | None:
        ids = self.device_ids or getattr(self.forward_func, "device_ids", None)
        return list(ids) if ids else None

    def _check_found(
        self,
        recorder: Recorder,
        record: AttentionRecord,
        layers: list[Module],
        arguments: tuple[Any, ...],
    ) -> None:
        found = {scope for call in record for scope in call.scopes}
        for i, layer in enumerate(layers):
            if i in found:
                continue
            whole = self.layer is None and i == 0
            name = "model" if whole else f"layer {type(layer).__name__}"
            if i not in recorder.entered:
                raise ValueError(
                    f"The {name} was not called by forward_func (or its forward method "
                    "was called directly, past its hooks, or in a thread of its own), "
                    "so there is no attention to explain. Pass a module that runs, and "
                    "call modules as functions, in the thread that explains."
                )
            model = uncompiled(self.forward_func)
            elsewhere = ""
            if isinstance(model, Module) and not whole:
                names = [info.name for info in find_attention_layers(model, *arguments)]
                elsewhere = f" Attention was found in: {', '.join(names) or 'none'}."
            raise ValueError(
                f"No attention was found in the {name}: it neither calls "
                "scaled_dot_product_attention or nn.MultiheadAttention nor weighs "
                f"values with a softmax.{elsewhere}"
            )


class AttentionGradientAttribution(AttentionAttribution, GradientAttribution):
    """Base of the attributions that are built on the gradient of attention weights."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        heads: Heads = None,
        loss_func: LossFunction | None = None,
    ) -> None:
        AttentionAttribution.__init__(
            self, forward_func, layer, device_ids, heads=heads
        )
        GradientAttribution.__init__(self, forward_func)
        self._loss_func = loss_func

    def _record(
        self,
        inputs: Inputs,
        target: TargetType,
        additional_forward_args: object | None,
        value_gradients: bool,
        factors: Factors | None = None,
    ) -> AttentionRecord:
        """One forward and one backward pass; all recorded calls have gradients, or
        are known to have no influence on the score."""
        with self._running(inputs, additional_forward_args) as (layers, arguments):

            def forward(lazy: bool) -> tuple[Recorder, Tensor]:
                recorder = self._recorder(
                    layers,
                    arguments,
                    value_gradients=value_gradients,
                    lazy=lazy,
                    factors=factors,
                )
                return recorder, self._score(recorder, arguments, target)

            recorder, score = lazily(forward)
            record = self._finished(recorder, layers, arguments)
            record.compute_gradients(score)
        self._check_on_path(record, layers)
        return record

    def _score(
        self, recorder: Recorder, arguments: tuple[Any, ...], target: TargetType
    ) -> Tensor:
        """Run the model: the score that is explained, one for each example."""
        with recorder:
            output = output_tensor(uncompiled(self.forward_func)(*arguments))
        if self._loss_func is None:
            return target_scores(output, target)
        return loss_scores(output, target, self._loss_func)

    def _check_on_path(self, record: AttentionRecord, layers: list[Module]) -> None:
        reached = {s for call in record if call.on_path for s in call.scopes}
        if self.layer is None:
            self._warn_of_lost(record)
            return
        for i, layer in enumerate(layers):
            if i not in reached:
                raise RuntimeError(
                    f"The attention weights of layer {type(layer).__name__} are not on "
                    "the path to the output that is explained: it does not depend on "
                    "them (something was detached, or another output was chosen)."
                )

    def _warn_of_lost(self, record: AttentionRecord) -> None:
        lost = {c.layer for c in record} - {c.layer for c in record if c.on_path}
        if lost:
            warnings.warn(
                "The score does not depend on the attention weights of "
                f"{', '.join(map(repr, sorted(lost)))}; they count as 0.",
                stacklevel=5,
            )


_Run = TypeVar("_Run", bound=tuple[Any, ...])


def lazily(forward: Callable[[bool], _Run]) -> _Run:
    """Run a model without a graph of what comes before the first attention call, or
    with it where the model turns out to need one.

    Args:
        forward (Callable): runs it, lazily or not, and returns the recorder, the score
            (or what the scores are taken from) and more.
    """
    with contextlib.suppress(RuntimeError):  # it is raised again if it is not our doing
        run = forward(True)
        recorder, score = run[:2]
        if score.requires_grad and not recorder.graph.autograd_used:
            return run
        del run, recorder, score
    return forward(False)


def _check_batch(record: AttentionRecord, examples: int) -> None:
    for same in zip(*record.parts, strict=True):
        size = sum(call.batch_size for call in same)
        if size != examples:
            raise ValueError(
                f"The attention in layer {same[0].layer!r} works on a batch of {size}, "
                f"while inputs hold {examples} examples (dimension 0). Inputs must be "
                "batch first, and forward_func must keep the examples apart."
            )
