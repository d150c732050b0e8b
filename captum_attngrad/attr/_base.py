"""What the attention attributions have in common: run, record, differentiate."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args, _format_inputs
from captum._utils.typing import TargetType
from captum.attr import LayerAttribution
from captum.attr._utils.attribution import GradientAttribution
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._target import (
    LossFunction,
    loss_scores,
    output_tensor,
    target_scores,
)
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.find import find_attention_layers
from captum_attngrad.capture.recorder import AttentionRecord, Recorder

Inputs = Tensor | tuple[Tensor, ...]


class AttentionAttribution(LayerAttribution, GradientAttribution):
    """Base of the attributions that are built on the gradient of attention weights."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        multiply_by_attention: bool = False,
        center: bool = False,
        loss_func: LossFunction | None = None,
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
        GradientAttribution.__init__(self, forward_func)
        self._multiply_by_attention = multiply_by_attention
        self._center = center
        self._loss_func = loss_func

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the gradient is multiplied by the attention weights."""
        return self._multiply_by_attention

    def _layers(self) -> list[Module]:
        if self.layer is None:
            return [_uncompiled(self.forward_func)]
        layers = self.layer if isinstance(self.layer, (list, tuple)) else [self.layer]
        if not layers:
            raise ValueError("layer is an empty list: pass the attention modules.")
        return [_uncompiled(layer) for layer in layers]

    def _record(
        self,
        inputs: Inputs,
        target: TargetType,
        additional_forward_args: object | None,
        value_gradients: bool,
    ) -> AttentionRecord:
        """One forward and one backward pass; all recorded calls have gradients, or
        are known to have no influence on the score."""
        forward_func = _uncompiled(self.forward_func)
        layers = self._layers()
        arguments = (
            *_format_inputs(inputs),
            *(_format_additional_forward_args(additional_forward_args) or ()),
        )
        modules = [forward_func] if isinstance(forward_func, Module) else layers
        with _gradients_allowed(modules), _not_compiled(modules):
            arguments = _usable(arguments)
            recorder, score = self._forward(
                forward_func, layers, arguments, target, value_gradients, lazy=True
            )
            if not score.requires_grad or len(recorder.threads) > 1:
                # The graph was lost on the way, as when replicas ran in threads of
                # their own: build it from the first operation on.
                recorder, score = self._forward(
                    forward_func, layers, arguments, target, value_gradients, lazy=False
                )
            record = recorder.finish(len(arguments[0]), self._device_ids())
            self._check_found(recorder, record, layers, arguments)
            record.compute_gradients(score)
        self._check_on_path(record, layers)
        _check_batch(record, len(arguments[0]))
        return record

    def _forward(
        self,
        forward_func: Callable[..., Any],
        layers: list[Module],
        arguments: tuple[Any, ...],
        target: TargetType,
        value_gradients: bool,
        lazy: bool,
    ) -> tuple[Recorder, Tensor]:
        """Run the model. ``lazy``: nothing that comes before the first attention call
        needs a graph, so autograd is off until then."""
        recorder = Recorder(
            layers,
            model=forward_func if isinstance(forward_func, Module) else None,
            batch_size=len(arguments[0]),
            value_gradients=value_gradients,
            start_graph=lazy,
        )
        with torch.set_grad_enabled(not lazy):
            with recorder:
                output = output_tensor(forward_func(*arguments))
            if self._loss_func is None:
                return recorder, target_scores(output, target)
            return recorder, loss_scores(output, target, self._loss_func)

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
            name = (
                f"layer {type(layer).__name__}" if self.layer is not None else "model"
            )
            if i not in recorder.entered:
                raise ValueError(
                    f"The {name} was not called by forward_func (or its forward method "
                    "was called directly, past its hooks), so there is no attention to "
                    "explain. Pass a module that runs, and call modules as functions."
                )
            model = _uncompiled(self.forward_func)
            elsewhere = ""
            if isinstance(model, Module) and self.layer is not None:
                names = [info.name for info in find_attention_layers(model, *arguments)]
                elsewhere = f" Attention was found in: {', '.join(names) or 'none'}."
            raise ValueError(
                f"No attention was found in the {name}: it neither calls "
                "scaled_dot_product_attention or nn.MultiheadAttention nor weighs "
                f"values with a softmax.{elsewhere}"
            )

    def _check_on_path(self, record: AttentionRecord, layers: list[Module]) -> None:
        reached = {s for call in record if call.on_path for s in call.scopes}
        if self.layer is None:
            lost = sorted(
                {c.layer for c in record} - {c.layer for c in record if c.on_path}
            )
            if lost:
                warnings.warn(
                    "The score does not depend on the attention weights of "
                    f"{', '.join(map(repr, lost))}; they count as 0.",
                    stacklevel=4,
                )
            return
        for i, layer in enumerate(layers):
            if i not in reached:
                raise RuntimeError(
                    f"The attention weights of layer {type(layer).__name__} are not on "
                    "the path to the output that is explained: it does not depend on "
                    "them (something was detached, or another output was chosen)."
                )


def grouped(record: AttentionRecord) -> list[tuple[str, list[list[AttentionCall]]]]:
    """The calls of each attention module, ``(name, one list of calls per replica)``,
    in the order in which the modules run."""
    names = list(dict.fromkeys(call.layer for call in record))
    return [
        (name, [[call for call in part if call.layer == name] for part in record.parts])
        for name in names
    ]


def _uncompiled(forward_func: Any) -> Any:
    """The original of what ``torch.compile`` wrapped: the same function."""
    original = getattr(forward_func, "_orig_mod", None)
    if isinstance(original, Module):
        return original
    original = getattr(forward_func, "_torchdynamo_orig_callable", None)
    return forward_func if original is None else original


@contextlib.contextmanager
def _not_compiled(modules: list[Module]) -> Iterator[None]:
    """Run modules that are compiled in place, or inside others, as plain Python."""
    compiled = [
        module
        for top in modules
        for module in top.modules()
        if hasattr(module, "_orig_mod")
        or getattr(module, "_compiled_call_impl", None) is not None
    ]
    if not compiled:
        yield
        return
    stance = getattr(torch.compiler, "set_stance", None)
    if stance is None:
        raise RuntimeError(
            f"{type(compiled[0]).__name__} is compiled with torch.compile, and torch "
            f"{torch.__version__} cannot run it uncompiled for a while (torch 2.6 can)."
            " Explain the original module."
        )
    with stance("force_eager"):
        yield


@contextlib.contextmanager
def _gradients_allowed(modules: list[Module]) -> Iterator[None]:
    """Gradients can be taken, also inside the caller's no_grad or inference_mode."""
    with torch.inference_mode(False), torch.enable_grad():
        for module in modules:
            for name, parameter in module.named_parameters():
                if parameter.is_inference():
                    raise RuntimeError(
                        f"The parameter {name!r} was created inside "
                        "torch.inference_mode(), and autograd refuses such tensors. "
                        "Build (or load) the model outside inference_mode; calling "
                        "attribute inside it is fine."
                    )
        yield


def _usable(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments that were made in inference mode, as ordinary tensors."""
    return tuple(
        a.clone() if isinstance(a, Tensor) and a.is_inference() else a
        for a in arguments
    )


def _check_batch(record: AttentionRecord, examples: int) -> None:
    for same in zip(*record.parts, strict=True):
        size = sum(call.batch_size for call in same)
        if size != examples:
            raise ValueError(
                f"The attention in layer {same[0].layer!r} works on a batch of {size}, "
                f"while inputs hold {examples} examples (dimension 0). Inputs must be "
                "batch first, and forward_func must keep the examples apart."
            )
