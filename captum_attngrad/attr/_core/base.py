"""What the attention attributions have in common: run, record, differentiate."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from captum._utils.common import (
    _expand_additional_forward_args,
    _expand_target,
    _format_additional_forward_args,
    _format_inputs,
)
from captum._utils.typing import TargetType
from captum.attr import LayerAttribution
from captum.attr._utils.attribution import GradientAttribution
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.heads import Heads, checked_heads
from captum_attngrad.attr._core.running import (
    gradients_allowed,
    not_compiled,
    uncompiled,
    usable,
    without_replicas,
)
from captum_attngrad.attr._core.target import (
    LossFunction,
    loss_scores,
    output_tensor,
    target_scores,
)
from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture._layout import ExampleDimension
from captum_attngrad.capture._layouts import example_dimension, layouts_of
from captum_attngrad.capture._writes import without_writes
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.find import find_attention_layers
from captum_attngrad.capture.options import CaptureOptions
from captum_attngrad.capture.recorder import AttentionRecord, Recorder

Inputs = Tensor | tuple[Tensor, ...]


class Arguments(tuple[Any, ...]):
    """What forward_func is called with: the inputs, and then what belongs to them."""

    inputs: int  # how many of them are inputs


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
            recorder = self._recorder(layers)
            with torch.no_grad(), recorder:
                uncompiled(self.forward_func)(*map(without_writes, arguments))
            return self._finished(recorder, layers, arguments)

    @contextlib.contextmanager
    def _running(
        self, inputs: Inputs, additional_forward_args: object | None
    ) -> Iterator[tuple[list[Module], Arguments]]:
        """The recorded layers and the arguments of forward_func, in a state in which
        it can be run and differentiated."""
        forward_func = uncompiled(self.forward_func)
        layers = self._layers()
        formatted = _format_inputs(inputs)
        others = _format_additional_forward_args(additional_forward_args) or ()
        tops = [forward_func] if isinstance(forward_func, Module) else layers
        modules = [module for top in tops for module in top.modules()]
        with gradients_allowed(modules), not_compiled(modules):
            arguments = Arguments(usable((*formatted, *others)))
            arguments.inputs = len(formatted)
            yield layers, arguments

    def _recorder(
        self,
        layers: list[Module],
        *,
        value_gradients: bool = False,
        lazy: bool = False,
        intervention: Intervention | None = None,
        backward_passes: bool = False,
    ) -> Recorder:
        """``backward_passes``: there will be several of them, or one with a batch of
        cotangents."""
        forward_func = uncompiled(self.forward_func)
        return Recorder(
            layers,
            model=forward_func if isinstance(forward_func, Module) else None,
            options=CaptureOptions(
                value_gradients=value_gradients,
                lazy_graph=lazy,
                skip_unused_rows=not backward_passes,
                intervention=intervention,
            ),
        )

    def _finished(
        self, recorder: Recorder, layers: list[Module], arguments: Arguments
    ) -> AttentionRecord:
        record = self._found(recorder, layers, arguments)
        self._arrange(record, layers, arguments)
        return record

    def _found(
        self, recorder: Recorder, layers: list[Module], arguments: Arguments
    ) -> AttentionRecord:
        """The recorded calls, whose layout is not known yet."""
        record = recorder.finish(self._device_ids())
        self._check_found(recorder, record, layers, arguments)
        self._warn_of_unseen(recorder)
        return record

    def _arrange(
        self, record: AttentionRecord, layers: list[Module], arguments: Arguments
    ) -> None:
        """Prove the layout of the calls, or recall what was proved before."""
        forward_func = uncompiled(self.forward_func)
        calls = record.parts[0]
        if len(record.parts) > 1:
            # The model itself is laid out as its replicas are.
            recorder = self._recorder(layers)
            with torch.no_grad(), without_replicas(forward_func), recorder:
                forward_func(*map(without_writes, arguments))
            parts = recorder.finish(self._device_ids()).parts
            if len(parts) > 1:
                raise NotImplementedError(
                    "Several replicas of a model ran in threads of their own, and no "
                    "single one can be run to prove how their attention is laid out. "
                    "Pass the nn.DataParallel module itself as forward_func."
                )
            calls = parts[0]

        def run(arguments: tuple[Any, ...], intervention: Intervention) -> None:
            recorder = self._recorder(layers, intervention=intervention)
            with torch.no_grad(), without_replicas(forward_func), recorder:
                forward_func(*arguments)

        verdicts = layouts_of(
            calls,
            forward_func,
            run,
            arguments[: arguments.inputs],
            arguments[arguments.inputs :],
        )
        record.arrange(verdicts)

    def _example_dimensions(
        self,
        record: AttentionRecord,
        inputs: Inputs,
        additional_forward_args: object | None,
    ) -> dict[int, ExampleDimension] | None:
        """Where each call has its examples, so that they can be scaled one by one;
        None where they cannot."""
        calls: list[AttentionCall] = record.calls
        if len(record.parts) > 1:
            return None
        if calls[0].batch_size == 1:
            # One example does not tell: look at two. Where they cannot be kept apart,
            # one point at a time is still exact.
            twice, _, more = repeated(inputs, None, additional_forward_args, 2)
            try:
                calls = self._record_forward(twice, more).calls
            except ValueError:
                return None
        try:
            return {call.place: example_dimension(call) for call in calls}
        except NotImplementedError:
            return None

    def _warn_of_unseen(self, recorder: Recorder) -> None:
        if recorder.lost:
            warnings.warn(_listed(recorder.lost).strip(), stacklevel=5)

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
                f"values with a softmax.{elsewhere}{_listed(recorder.lost)}"
            )


def _listed(lost: list[tuple[str, str]]) -> str:
    """A sentence about the softmaxes that were lost from sight, if any were."""
    if not lost:
        return ""
    listed = ", ".join(
        f"{layer or 'the model itself'!r} (lost at {operation!r})"
        for layer, operation in lost
    )
    return (
        " A softmax weighs values after an operation that cannot be followed, so its "
        f"attention is not part of the scores: {listed}."
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
        if loss_func is not None and not callable(loss_func):
            raise TypeError(
                f"loss_func={loss_func!r:.80} ({type(loss_func).__name__}) cannot be "
                "called: expected None, or a function of the output and the target."
            )
        self._loss_func = loss_func

    def compute_convergence_delta(self, *_: Any, **__: Any) -> Tensor:
        """
        Not for every attribution: see ``has_convergence_delta()``.

        Raises:
            NotImplementedError: where the scores are not made to sum to a difference
                of outputs. What Captum would compute in its place compares them with
                two points that have no part in them.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no convergence delta, since its scores do not "
            "sum to a difference of outputs (has_convergence_delta() is False). "
            "IntegratedAttentionGradient and JointIntegratedGradients have one."
        )

    def _arrange(
        self, record: AttentionRecord, layers: list[Module], arguments: Arguments
    ) -> None:
        try:
            super()._arrange(record, layers, arguments)
        except ValueError:
            # A quantized model often fails here, for examples share its rounding; that
            # it has no gradient says more.
            self._check_differentiable(layers, arguments)
            raise

    def _check_differentiable(self, layers: list[Module], arguments: Arguments) -> None:
        """Some output depends on some attention."""
        recorder = self._recorder(layers)
        with recorder:
            given = map(without_writes, arguments)
            output = output_tensor(uncompiled(self.forward_func)(*given))
        record = recorder.finish()
        record.compute_gradients(output.sum())
        self._check_some_on_path(record)

    def _record(
        self,
        inputs: Inputs,
        target: TargetType,
        additional_forward_args: object | None,
        value_gradients: bool,
        intervention: Intervention | None = None,
    ) -> AttentionRecord:
        """One forward and one backward pass; all recorded calls have gradients, or
        are known to have no influence on the score."""
        with self._running(inputs, additional_forward_args) as (layers, arguments):

            def forward(lazy: bool) -> tuple[Recorder, Tensor]:
                recorder = self._recorder(
                    layers,
                    value_gradients=value_gradients,
                    lazy=lazy,
                    intervention=intervention,
                )
                return recorder, self._score(recorder, arguments, target)

            recorder, score = lazily(forward)
            record = self._found(recorder, layers, arguments)
            record.compute_gradients(score)
            self._check_on_path(record, layers)
            self._arrange(record, layers, arguments)
        return record

    def _score(
        self, recorder: Recorder, arguments: tuple[Any, ...], target: TargetType
    ) -> Tensor:
        """Run the model: the score that is explained, one for each example."""
        with recorder:
            given = map(without_writes, arguments)
            output = output_tensor(uncompiled(self.forward_func)(*given))
        if self._loss_func is None:
            return target_scores(output, target, len(arguments[0]))
        return loss_scores(output, target, self._loss_func, len(arguments[0]))

    def _check_on_path(self, record: AttentionRecord, layers: list[Module]) -> None:
        reached = {s for call in record if call.on_path for s in call.scopes}
        if self.layer is None:
            self._check_some_on_path(record)
            return
        for i, layer in enumerate(layers):
            if i not in reached:
                raise RuntimeError(
                    f"The attention weights of layer {type(layer).__name__} are not on "
                    f"the path to the output that is explained: {_NO_PATH}"
                )

    def _check_some_on_path(self, record: AttentionRecord) -> None:
        """Layers without influence count as 0, but there must be one that has some."""
        found = {call.layer for call in record if call.on_path}
        lost = ", ".join(repr(n) for n in sorted({c.layer for c in record} - found))
        if not found:
            raise RuntimeError(
                f"None of the attention weights ({lost}) are on the path to the output "
                f"that is explained: {_NO_PATH}"
            )
        if lost:
            warnings.warn(
                f"The score does not depend on the attention weights of {lost}; they "
                "count as 0.",
                stacklevel=5,
            )


def repeated(
    inputs: Inputs,
    target: TargetType,
    additional_forward_args: object | None,
    times: int,
) -> tuple[Inputs, TargetType, object | None]:
    """The examples once for each point, all examples of a point together."""
    arguments = _format_additional_forward_args(additional_forward_args)
    if times == 1:
        return inputs, target, arguments
    return (
        tuple(torch.cat([each] * times) for each in _format_inputs(inputs)),
        _expand_target(target, times),
        _expand_additional_forward_args(arguments, times),
    )


_NO_PATH = (
    "no gradient reaches them. Either the output does not depend on them, or something "
    "on the way cannot be differentiated (a detach, an integer or quantized layer, an "
    "operation without a backward pass). Explain the model before quantization, or "
    "another output."
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
