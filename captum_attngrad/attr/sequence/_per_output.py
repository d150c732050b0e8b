"""Run a sequence model, and find the attention and the gradient of each output."""

from __future__ import annotations

import warnings
from functools import partial

from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.base import (
    Arguments,
    AttentionGradientAttribution,
    Inputs,
    lazily,
)
from captum_attngrad.attr._core.heads import grouped
from captum_attngrad.attr._core.queries import check_keys
from captum_attngrad.attr._core.running import uncompiled
from captum_attngrad.attr._core.target import output_tensor
from captum_attngrad.attr._core.whole_numbers import checked_batch_size
from captum_attngrad.attr.sequence._isolated_positions import OwnPositions, Switch
from captum_attngrad.attr.sequence._output_attention import (
    Layers,
    influence_no_earlier_output,
    output_attention,
    own_calls,
)
from captum_attngrad.attr.sequence._output_gradients import Seen, set_own_gradients
from captum_attngrad.attr.sequence._output_parts import OutputParts
from captum_attngrad.attr.sequence._output_scores import check_output, output_scores
from captum_attngrad.capture._writes import without_writes
from captum_attngrad.capture.recorder import AttentionRecord, Recorder


class PerOutputAttribution(AttentionGradientAttribution):
    """Base of attributions with one explanation for each output of a sequence."""

    _ignore_index: int

    def _explained_calls(
        self,
        inputs: Inputs,
        targets: Tensor,
        additional_forward_args: object | None,
        internal_batch_size: int | None,
    ) -> tuple[Layers, Tensor]:
        """The calls that are explained, with the gradient of each output in its row,
        and which outputs are not ignored."""
        internal_batch_size = checked_batch_size(internal_batch_size)
        with self._running(inputs, additional_forward_args) as (modules, arguments):
            outputs = targets.shape[1]
            recorder, output, seen = self._forward(modules, arguments, outputs)
            targets = targets.to(output.device)
            check_output(output, targets, self._ignore_index)
            kept = targets != self._ignore_index
            scores = output_scores(output, targets, kept, self._loss_func)
            record = self._finished(recorder, modules, arguments)
            layers = output_attention(
                grouped(record),
                outputs,
                0 if self.layer is None else len(modules),
                partial(influence_no_earlier_output, output),
            )
            self._check_chosen(record, layers, modules, outputs)
            check_keys(layers)
            calls = own_calls(layers, outputs)
            if not scores.requires_grad or not calls:
                raise RuntimeError(_LOST.format(_names(layers)))
            set_own_gradients(
                scores,
                kept,
                calls,
                seen,
                output.numel(),
                _outputs_per_pass(internal_batch_size, len(targets)),
            )
        self._check_reached(layers)
        return layers, kept

    def _forward(
        self,
        modules: list[Module],
        arguments: Arguments,
        outputs: int,
    ) -> tuple[Recorder, Tensor, Seen]:
        def forward(lazy: bool) -> tuple[Recorder, Tensor, Seen]:
            recorder = self._recorder(modules, lazy=lazy, backward_passes=True)
            switch, parts = Switch(), OutputParts(outputs)
            with OwnPositions(switch, outputs), parts, recorder:
                given = map(without_writes, arguments)
                output = output_tensor(uncompiled(self.forward_func)(*given))
            return recorder, output, Seen(switch, parts.found)

        return lazily(forward)

    def _check_reached(self, layers: Layers) -> None:
        lost = [
            (name, parts)
            for name, parts in layers
            if not any(call.on_path for calls in parts for call in calls)
        ]
        if len(lost) == len(layers) or (lost and self.layer is not None):
            raise RuntimeError(_LOST.format(_names(lost)))
        if lost:
            warnings.warn(
                "The outputs do not depend on the attention weights of "
                f"{_names(lost)}; they count as 0.",
                stacklevel=4,
            )

    def _check_chosen(
        self,
        record: AttentionRecord,
        layers: Layers,
        modules: list[Module],
        outputs: int,
    ) -> None:
        """Each of the layers that the user has named has a part in it."""
        chosen = {
            scope for _, parts in layers for call in parts[0] for scope in call.scopes
        }
        for i, module in enumerate(modules):
            if i not in chosen:
                sizes = {
                    f"{call.query_length} x {call.key_length}"
                    for call in record
                    if i in call.scopes
                }
                raise ValueError(
                    f"The attention of layer {type(module).__name__} (queries x keys: "
                    f"{', '.join(sorted(sizes))}) does not go from the {outputs} "
                    f"outputs to the source, as that of {_names(layers)} does. Explain "
                    "them one at a time."
                )


_LOST = (
    "The outputs do not depend on the attention weights of {}: they are not on the "
    "path to the output. Was something detached, or the forward pass run without "
    "gradients (torch.no_grad, an inference-only kernel)?"
)


def _names(layers: Layers) -> str:
    return ", ".join(repr(name) for name, _ in layers)


def _outputs_per_pass(internal_batch_size: int | None, examples: int) -> int | None:
    if internal_batch_size is None:
        return None
    return max(1, internal_batch_size // max(1, examples))
