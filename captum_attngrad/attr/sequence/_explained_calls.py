"""Run a sequence model, and give the attention of each output its gradient."""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.inputs import Inputs
from captum_attngrad.attr._core.layer_calls import (
    LayerCalls,
    check_same_keys,
    layer_calls,
)
from captum_attngrad.attr._core.run import Runner
from captum_attngrad.attr._core.target import output_tensor
from captum_attngrad.attr.sequence._diagonal_gradients import (
    Preparation,
    set_diagonal_gradients,
)
from captum_attngrad.attr.sequence._isolated_positions import IsolatePositions, Switch
from captum_attngrad.attr.sequence._output_scores import check_output, output_scores
from captum_attngrad.attr.sequence._source_attention import (
    influence_no_earlier_output,
    names_of,
    output_calls,
    source_attention,
)
from captum_attngrad.attr.sequence._step_outputs import StepOutputs
from captum_attngrad.capture._interventions import Together
from captum_attngrad.capture.record import AttentionRecord


def explained_calls(
    runner: Runner,
    inputs: Inputs,
    targets: Tensor,
    additional_forward_args: object | None,
    ignore_index: int,
    named: int,
    internal_batch_size: int | None,
) -> tuple[list[LayerCalls], Tensor]:
    """
    The attention of the outputs to the source, with the gradient of each output in the
    row (or call) that it used.

    Args:
        runner (Runner): runs the model.
        inputs, additional_forward_args: as for ``attribute``.
        targets (Tensor): token ids, ``(batch, outputs)``.
        ignore_index (int): the target of outputs that are not explained.
        named (int): how many layers the user has named; 0: none.
        internal_batch_size (int, optional): examples x outputs in one pass.

    Returns:
        The layers, and which outputs are explained, ``(batch, outputs)``.

    Raises:
        ValueError: if targets do not fit the output, or no attention goes from the
            outputs to a source.
        RuntimeError: if the outputs do not depend on the attention weights.
    """
    outputs = targets.shape[1]
    prepared = Preparation(Switch(), StepOutputs(outputs))
    with runner.open(
        inputs,
        additional_forward_args,
        output_tensor,
        graph=True,
        several_backward_passes=True,
        intervention=Together(
            prepared.steps, IsolatePositions(prepared.switch, outputs)
        ),
    ) as opened:
        output = opened.score
        targets = targets.to(output.device)
        check_output(output, targets, ignore_index)
        kept = targets != ignore_index
        scores = output_scores(output, targets, kept, runner.loss_func)
        record = runner.arranged(opened)
        layers = source_attention(
            layer_calls(record),
            outputs,
            named,
            partial(influence_no_earlier_output, output),
        )
        _check_named(record, layers, runner.layers, outputs)
        check_same_keys(layers)
        calls = output_calls(layers, outputs)
        if scores.requires_grad and calls:
            outputs_per_pass = None
            if internal_batch_size is not None:
                outputs_per_pass = max(1, internal_batch_size // max(1, len(targets)))
            set_diagonal_gradients(
                scores,
                kept,
                calls,
                prepared,
                output.numel(),
                outputs_per_pass,
            )
    runner.check_on_path([call for layer in layers for call in layer.calls])
    return layers, kept


def _check_named(
    record: AttentionRecord,
    layers: list[LayerCalls],
    modules: list[Module],
    outputs: int,
) -> None:
    """
    Raises:
        ValueError: if a layer that the user has named is not among those explained.
    """
    chosen = {s for layer in layers for call in layer.calls for s in call.scopes}
    for i, module in enumerate(modules):
        if i not in chosen:
            sizes = {
                f"{call.query_length} x {call.key_length}"
                for call in record
                if i in call.scopes
            }
            raise ValueError(
                f"The attention of layer {type(module).__name__} (queries x keys: "
                f"{', '.join(sorted(sizes))}) does not go from the {outputs} outputs "
                f"to the source, as that of {names_of(layers)} does. Explain them one "
                "at a time."
            )
