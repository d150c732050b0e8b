"""Run a model, record its attention and differentiate its score.

Nothing else in :mod:`captum_attngrad.attr` calls ``forward_func`` or asks autograd for
the gradient of a model's output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import TargetType, formatted_arguments, formatted_inputs
from captum_attngrad.attr._core.checks import (
    check_every_layer_on_path,
    check_layers_found,
    check_some_layer_on_path,
    warn_of_untracked,
)
from captum_attngrad.attr._core.embedding import (
    Embeddings,
    embeddings_of,
    embeddings_off_path,
)
from captum_attngrad.attr._core.inputs import Inputs, number_of_examples
from captum_attngrad.attr._core.surroundings import (
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
from captum_attngrad.capture._proof.layouts import layouts_of
from captum_attngrad.capture._surroundings.writes import without_writes
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.options import CaptureOptions
from captum_attngrad.capture.record import AttentionRecord
from captum_attngrad.capture.recorder import Recorder

ScoreOf = Callable[[Any], Tensor]  # the score that is explained, of the model's output


class Run(NamedTuple):
    """What one forward pass, and perhaps one backward pass, gave.

    Attributes:
        record (AttentionRecord): the attention calls, in a known layout. After a run
            with a graph they have gradients, or are known to have no influence.
        score (Tensor): ``(batch,)``.
        embeddings (Tensor, optional): what the embedding layer returned, detached, in
            the model's own layout.
        embedding_gradient (Tensor, optional): of the score, by the embeddings that
            were put in.
    """

    record: AttentionRecord
    score: Tensor
    embeddings: Tensor | None = None
    embedding_gradient: Tensor | None = None


class Arguments(NamedTuple):
    """What forward_func is called with."""

    inputs: tuple[Tensor, ...]
    others: tuple[Any, ...]


@dataclass
class OpenRun:
    """A forward pass whose graph is still there.

    Attributes:
        score (Tensor): what ``score_of`` returned.
        recorder (Recorder): what saw the attention calls.
        arguments (Arguments): what forward_func was called with.
        embeddings (Embeddings, optional): what the embedding layer returned.
        vectors (Tensor, optional): the leaf that was put in the place of it.
    """

    score: Tensor
    recorder: Recorder
    arguments: Arguments
    embeddings: Embeddings | None = None
    vectors: Tensor | None = None


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
        value_gradients: bool = True,
        intervention: Intervention | None = None,
        embedding: Module | None = None,
        put_in: Tensor | None = None,
    ) -> Run:
        """
        Run the model and score its output.

        Args:
            inputs, target, additional_forward_args: as for ``attribute``.
            graph (bool): whether the score is differentiated.
            value_gradients (bool): whether calls need the gradients of their values.
            intervention (Intervention, optional): what happens at the attention calls.
            embedding (Module, optional): the layer whose output is of interest.
            put_in (Tensor, optional): what ``embedding`` is made to return.

        Raises:
            ValueError: if a layer does not run, or has no attention.
            RuntimeError: if the score is differentiated and does not depend on the
                attention weights, or on the embeddings that were put in.
            NotImplementedError: if replicas of the model run, and ``embedding`` is
                given.
        """
        with self.open(
            inputs,
            additional_forward_args,
            self.score_of(target, inputs),
            graph=graph,
            value_gradients=graph and value_gradients,
            intervention=intervention,
            embedding=embedding,
            put_in=put_in,
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
        given = None
        if opened.embeddings is not None:
            if len(record.replicas) > 1:
                raise NotImplementedError(
                    "Replicas of a model on several devices cannot be explained along "
                    "a path of embeddings. Pass the model itself "
                    "(data_parallel.module)."
                )
            given = None if put_in is not None else opened.embeddings.given
        return Run(record, opened.score, given, gradient)

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
        value_gradients: bool = False,
        several_backward_passes: bool = False,
        intervention: Intervention | None = None,
        embedding: Module | None = None,
        put_in: Tensor | None = None,
    ) -> Iterator[OpenRun]:
        """Run the model; inside the block its score can be differentiated, whatever
        the caller's gradient mode is. Arguments as for :meth:`run`."""

        def forward(arguments: Arguments, lazy: bool) -> OpenRun:
            recorder = self._recorder(
                value_gradients=value_gradients,
                lazy=lazy,
                intervention=intervention,
                backward_passes=several_backward_passes,
            )
            vectors = None if put_in is None else put_in.clone().requires_grad_()
            with contextlib.ExitStack() as around:
                around.enter_context(torch.set_grad_enabled(graph))
                seen = None
                if embedding is not None:
                    embeddings = embeddings_of(uncompiled(embedding), put_in=vectors)
                    seen = around.enter_context(embeddings)
                # An intervention may act on the operations of the score too.
                around.enter_context(recorder)
                score = score_of(self._call(arguments))
            return OpenRun(score, recorder, arguments, seen, vectors)

        with self._prepared(inputs, additional_forward_args) as arguments:
            if graph and put_in is None:
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

    def check_on_path(self, record: AttentionRecord) -> None:
        """
        Raises:
            RuntimeError: if the score does not depend on the attention weights.
        """
        if self._needs_every_layer:
            check_every_layer_on_path(record, self.layers)
        else:
            check_some_layer_on_path(record)

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
            yield Arguments(usable(formatted), usable(others))

    def _recorder(
        self,
        *,
        value_gradients: bool = False,
        lazy: bool = False,
        intervention: Intervention | None = None,
        backward_passes: bool = False,
    ) -> Recorder:
        """``backward_passes``: there will be several, or one with a batch of
        cotangents."""
        model = self.forward_func if isinstance(self.forward_func, Module) else None
        return Recorder(
            self.layers,
            model=model,
            options=CaptureOptions(
                value_gradients=value_gradients,
                lazy_graph=lazy,
                skip_unused_rows=not backward_passes,
                intervention=intervention,
            ),
        )

    def _call(self, arguments: Arguments, recorder: Recorder | None = None) -> Any:
        with recorder or contextlib.nullcontext():
            given = map(without_writes, (*arguments.inputs, *arguments.others))
            return self.forward_func(*given)

    # -- what was recorded ------------------------------------------------------------

    def _found(self, opened: OpenRun) -> AttentionRecord:
        """The recorded calls, whose layout is not known yet."""
        record = opened.recorder.finish(self._device_ids)
        check_layers_found(
            opened.recorder,
            self.layers,
            self.forward_func,
            (*opened.arguments.inputs, *opened.arguments.others),
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
        with torch.no_grad(), without_replicas(self.forward_func):
            self._call(Arguments((), arguments), recorder)

    def _calls_of_one_replica(
        self, record: AttentionRecord, arguments: Arguments
    ) -> list[AttentionCall]:
        if len(record.replicas) == 1:
            return record.replicas[0]
        # The model itself is laid out as its replicas are.
        recorder = self._recorder()
        self._call_alone((*arguments.inputs, *arguments.others), recorder)
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
        check_some_layer_on_path(record)


def _lazily(forward: Callable[[bool], OpenRun]) -> OpenRun:
    """Run a model without a graph of what comes before the first attention call, or
    with it where the model turns out to need one."""
    with contextlib.suppress(RuntimeError):  # it is raised again if it is not our doing
        opened = forward(True)
        if opened.score.requires_grad and not opened.recorder.graph.autograd_used:
            return opened
        del opened
    return forward(False)
