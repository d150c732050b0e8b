"""Run a model, record its attention and differentiate its score.

Nothing else in :mod:`captum_attngrad.attr` calls ``forward_func`` or asks autograd for
the gradient of a model's output.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import TargetType, formatted_arguments, formatted_inputs
from captum_attngrad.attr._core.checks import (
    check_layers_found,
    check_on_path,
    warn_of_untracked,
)
from captum_attngrad.attr._core.embedding import embeddings_of, embeddings_off_path
from captum_attngrad.attr._core.environment import (
    gradients_allowed,
    not_compiled,
    uncompiled,
    without_inference_tensors,
    without_replicas,
)
from captum_attngrad.attr._core.inputs import Inputs, number_of_examples
from captum_attngrad.attr._core.run_result import Arguments, OpenRun, Run
from captum_attngrad.attr._core.target import (
    LossFunction,
    loss_scores,
    output_tensor,
    target_scores,
)
from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture._proof.layouts import layouts_of
from captum_attngrad.capture._surroundings.writes import without_writes
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.options import CaptureOptions
from captum_attngrad.capture.record import AttentionRecord
from captum_attngrad.capture.recorder import Recorder

ScoreOf = Callable[[Any], Tensor]  # the score that is explained, of the model's output


def gradients(
    outputs: Tensor | Sequence[Tensor],
    sources: Sequence[Any],
    cotangents: Tensor | Sequence[Tensor | None] | None = None,
    *,
    batched: bool = False,
    keep_graph: bool = True,
) -> list[Tensor | None]:
    """``torch.autograd.grad``, with None for each source without influence. No
    ``.grad`` is touched."""
    if not sources or (not isinstance(outputs, Tensor) and not outputs):
        return [None] * len(sources)
    return list(
        torch.autograd.grad(
            outputs,
            list(sources),
            cotangents,
            retain_graph=keep_graph,
            allow_unused=True,
            is_grads_batched=batched,
        )
    )


def gradients_of_each(
    outputs: Tensor, sources: Sequence[Any], cotangents: Sequence[Tensor] | Tensor
) -> list[Tensor | None]:
    """For each source ``(len(cotangents), ...)``: the gradients of :func:`gradients`
    for each cotangent, in one backward pass where the operations allow it."""
    if len(cotangents) > 1:
        try:
            with warnings.catch_warnings():
                # Operations without a batched backward run one after the other.
                warnings.filterwarnings("ignore", message="There is a performance drop")
                return gradients(outputs, sources, cotangents, batched=True)
        except RuntimeError as error:
            if not _cannot_be_batched(error):
                raise
            # Some operation cannot be batched: one output after the other.
    single = [gradients(outputs, sources, cotangent) for cotangent in cotangents]
    return [
        None if found[0] is None else torch.stack(found)
        for found in zip(*single, strict=True)
    ]


# How torch says, from 2.3 to 2.13, that an operation of a backward pass cannot run on
# a batch of cotangents: no rule for it, a write of batched values into a tensor that is
# not batched, a random operation, or an operation that reads memory or sizes directly.
_CANNOT_BE_BATCHED = (
    "Batching rule not implemented for ",
    "vmap: ",
    "vmap only supports tensors of dimensionality up to ",
    "NYI: ",
    "Cannot access data pointer of Tensor that doesn't have storage",
    "!batched_tensor_inputs.empty() INTERNAL ASSERT FAILED",
)


def _cannot_be_batched(error: RuntimeError) -> bool:
    """Whether ``error`` is about the batch. Anything else, running out of memory above
    all, would not go away one output at a time, or would go away slowly and unseen."""
    # What batched tensors do not have at all, such as a storage, is not implemented.
    return isinstance(error, NotImplementedError) or str(error).startswith(
        _CANNOT_BE_BATCHED
    )


class Runner:
    """
    Runs one model and records the attention of some layers.

    Args:
        forward_func (Callable): the model, or a function that runs it.
        layers (list of Module): the layers whose attention is recorded.
        device_ids (list of int, optional): the order of replicas.
            Default: that of ``forward_func``
        loss_func (Callable, optional): the score is minus this loss.
        needs_gradients (bool): whether a model without gradients is an error.
        needs_every_layer (bool): whether the score must depend on each of the layers,
            and not just on one.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layers: Sequence[Module],
        device_ids: list[int] | None = None,
        *,
        loss_func: LossFunction | None = None,
        needs_gradients: bool = True,
        needs_every_layer: bool = False,
    ) -> None:
        ids = device_ids or getattr(forward_func, "device_ids", None)
        self.forward_func = uncompiled(forward_func)
        self.layers = [uncompiled(layer) for layer in layers]
        self.loss_func = loss_func
        self._device_ids = list(ids) if ids else None
        self._needs_gradients = needs_gradients
        self._needs_every_layer = needs_every_layer

    def run(
        self,
        inputs: Inputs,
        target: TargetType,
        additional_forward_args: object | None,
        *,
        graph: bool,
        **options: Any,
    ) -> Run:
        """
        Run the model and score its output.

        Args:
            inputs, target, additional_forward_args: as for ``attribute``.
            graph (bool): whether the score is differentiated.
            **options: as for :meth:`open`. ``value_gradients`` is ``graph`` by default.

        Raises:
            ValueError: if a layer does not run, or has no attention.
            RuntimeError: if the score is differentiated and does not depend on the
                attention weights, or on the embeddings that were put in.
            NotImplementedError: if replicas of the model run, and ``embedding`` is
                given.
        """
        score_of = self.score_of(target, inputs)
        options = {"value_gradients": graph, **options}
        with self.open(
            inputs, additional_forward_args, score_of, graph=graph, **options
        ) as opened:
            record = self._found(opened)
            gradient = None
            if graph:
                vectors = [] if opened.vectors is None else [opened.vectors]
                found = record.compute_gradients(opened.score, vectors)
                self.check_on_path(record)
                if vectors:
                    (gradient,) = found
                    if gradient is None:
                        raise embeddings_off_path()
            self._arrange(record, opened.arguments)
        embeddings = None
        if opened.embeddings is not None:
            if len(record.replicas) > 1:
                raise NotImplementedError(
                    "Replicas of a model on several devices cannot be explained along "
                    "a path of embeddings. Pass the model itself "
                    "(data_parallel.module)."
                )
            embeddings = opened.embeddings.given if opened.vectors is None else None
        return Run(record, opened.score.detach(), embeddings, gradient)

    def record(
        self, inputs: Inputs, additional_forward_args: object | None
    ) -> AttentionRecord:
        """Run the model without a graph and without a score."""
        with self.open(
            inputs, additional_forward_args, lambda output: torch.empty(0), graph=False
        ) as opened:
            return self.arranged(opened)

    def output(self, inputs: Inputs, additional_forward_args: object | None) -> Tensor:
        """The model's output, without a graph; its attention is not recorded."""
        prepared = self._prepared(inputs, additional_forward_args)
        with prepared as arguments, torch.no_grad():
            return output_tensor(self._call(arguments))

    @contextlib.contextmanager
    def open(
        self,
        inputs: Inputs,
        additional_forward_args: object | None,
        score_of: ScoreOf,
        *,
        graph: bool,
        embedding: Module | None = None,
        replacement: Tensor | None = None,
        **capture: Any,
    ) -> Iterator[OpenRun]:
        """
        Run the model. Inside the block its score can be differentiated, whatever the
        caller's gradient mode is.

        Args:
            inputs, additional_forward_args: as for ``attribute``.
            score_of (Callable): what makes a tensor out of the model's output.
            graph (bool): whether the run has a graph.
            embedding (Module, optional): the layer whose output is of interest.
            replacement (Tensor, optional): what ``embedding`` returns instead.
            **capture: as for :meth:`_recorder`.
        """

        def forward(arguments: Arguments, lazy: bool) -> OpenRun:
            recorder = self._recorder(lazy=lazy, **capture)
            vectors = None
            if replacement is not None:
                vectors = replacement.clone().requires_grad_()
            with contextlib.ExitStack() as around:
                around.enter_context(torch.set_grad_enabled(graph))
                seen = None
                if embedding is not None:
                    embeddings = embeddings_of(uncompiled(embedding), vectors)
                    seen = around.enter_context(embeddings)
                # An intervention may act on the operations of the score too.
                around.enter_context(recorder)
                score = score_of(self._call(arguments))
            return OpenRun(score, recorder, arguments, seen, vectors)

        with self._prepared(inputs, additional_forward_args) as arguments:
            if graph and replacement is None:
                yield _lazily(lambda lazy: forward(arguments, lazy))
            else:
                yield forward(arguments, False)

    def score_of(self, target: TargetType, inputs: Inputs) -> ScoreOf:
        """What makes one number for each example out of the model's output."""
        examples = number_of_examples(inputs)

        def score(output: Any) -> Tensor:
            given = output_tensor(output)
            if self.loss_func is None:
                return target_scores(given, target, examples)
            return loss_scores(given, target, self.loss_func, examples)

        return score

    def arranged(self, opened: OpenRun) -> AttentionRecord:
        """The calls of a run, checked and in the layout (batch, heads, queries, keys).

        Raises:
            ValueError: if a layer has none, or a layout cannot be proved.
        """
        record = self._found(opened)
        self._arrange(record, opened.arguments)
        return record

    def check_on_path(self, calls: Iterable[AttentionCall]) -> None:
        """
        Raises:
            RuntimeError: if the score does not depend on the attention weights.
        """
        check_on_path(list(calls), self.layers if self._needs_every_layer else ())

    # -- one forward pass -------------------------------------------------------------

    @contextlib.contextmanager
    def _prepared(
        self, inputs: Inputs, additional_forward_args: object | None
    ) -> Iterator[Arguments]:
        """A state in which the model can be run, recorded and differentiated."""
        is_module = isinstance(self.forward_func, Module)
        tops: Sequence[Any] = [self.forward_func] if is_module else self.layers
        modules = [module for top in tops for module in top.modules()]
        formatted = formatted_inputs(inputs)
        others = formatted_arguments(additional_forward_args)
        with gradients_allowed(modules), not_compiled(modules):
            yield Arguments(
                without_inference_tensors(formatted), without_inference_tensors(others)
            )

    def _recorder(
        self,
        *,
        value_gradients: bool = False,
        lazy: bool = False,
        intervention: Intervention | None = None,
        several_backward_passes: bool = False,
    ) -> Recorder:
        """
        Args:
            value_gradients (bool): whether calls need the gradients of their values.
            lazy (bool): whether the graph begins at the first attention call.
            intervention (Intervention, optional): what happens at the attention calls.
            several_backward_passes (bool): whether there will be several, or one with
                a batch of cotangents.
        """
        is_module = isinstance(self.forward_func, Module)
        return Recorder(
            self.layers,
            model=self.forward_func if is_module else None,
            options=CaptureOptions(
                value_gradients=value_gradients,
                lazy_graph=lazy,
                skip_unused_rows=not several_backward_passes,
                intervention=intervention,
            ),
        )

    def _call(self, arguments: Arguments, recorder: Recorder | None = None) -> Any:
        with recorder or contextlib.nullcontext():
            return self.forward_func(*map(without_writes, arguments.all))

    # -- what was recorded ------------------------------------------------------------

    def _found(self, opened: OpenRun) -> AttentionRecord:
        """The recorded calls, whose layout is not known yet."""
        record = opened.recorder.finish(self._device_ids)
        check_layers_found(
            opened.recorder,
            self.layers,
            self.forward_func,
            opened.arguments.all,
        )
        warn_of_untracked(opened.recorder)
        return record

    def _arrange(self, record: AttentionRecord, arguments: Arguments) -> None:
        """Prove the layout of the calls, or recall what was proved before."""
        try:
            verdicts = layouts_of(
                self._calls_of_one_replica(record, arguments),
                self.forward_func,
                lambda given, intervention: self._call_alone(
                    given, self._recorder(intervention=intervention)
                ),
                arguments.inputs,
                arguments.others,
                layers=self.layers,
            )
        except ValueError:
            # A quantized model often fails here, for examples share its rounding; that
            # it has no gradient says more.
            if self._needs_gradients:
                self._check_differentiable(arguments)
            raise
        record.arrange(verdicts)

    def _call_alone(self, arguments: tuple[Any, ...], recorder: Recorder) -> None:
        """Run the model itself, where replicas of it ran in threads of their own."""
        with without_replicas(self.forward_func):
            self._call(Arguments((), arguments), recorder)

    def _calls_of_one_replica(
        self, record: AttentionRecord, arguments: Arguments
    ) -> list[AttentionCall]:
        if len(record.replicas) == 1:
            return record.replicas[0]
        # The model itself is laid out as its replicas are.
        recorder = self._recorder()
        with torch.no_grad():
            self._call_alone(arguments.all, recorder)
        parts = recorder.finish(self._device_ids).replicas
        if len(parts) > 1:
            raise NotImplementedError(
                "Several replicas of a model ran in threads of their own, and no "
                "single one can be run to prove how their attention is laid out. "
                "Pass the nn.DataParallel module itself as forward_func."
            )
        return parts[0]

    def _check_differentiable(self, arguments: Arguments) -> None:
        """Some output depends on some attention."""
        recorder = self._recorder()
        output = output_tensor(self._call(arguments, recorder))
        record = recorder.finish()
        record.compute_gradients(output.sum())
        check_on_path(record.calls)


def _lazily(forward: Callable[[bool], OpenRun]) -> OpenRun:
    """Run a model without a graph of what comes before the first attention call, or
    with it where the model turns out to need one."""
    with contextlib.suppress(RuntimeError):  # it is raised again if it is not our doing
        opened = forward(True)
        if opened.score.requires_grad and not opened.recorder.graph.autograd_used:
            return opened
        del opened
    return forward(False)
