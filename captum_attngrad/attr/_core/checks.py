"""Whether the attention of the chosen layers was seen, and matters to the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.nn import Module

from captum_attngrad.attr._core.warning import warn
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.find import find_attention_layers
from captum_attngrad.capture.recorder import Recorder

_NO_PATH = (
    "no gradient reaches them. Either the output does not depend on them, or something "
    "on the way cannot be differentiated (a detach, torch.no_grad in forward_func, an "
    "integer or quantized layer, an operation without a backward pass). Explain the "
    "model before quantization, or another output."
)


def check_layers_found(
    recorder: Recorder,
    layers: Sequence[Module],
    model: Any,
    arguments: tuple[Any, ...],
) -> None:
    """
    Raises:
        ValueError: if a layer did not run, or does not attend.
    """
    found = {scope for call in recorder.record for scope in call.scopes}
    for i, layer in enumerate(layers):
        if i in found:
            continue
        is_model = layer is model
        name = "model" if is_model else f"layer {type(layer).__name__}"
        if i not in recorder.entered:
            raise ValueError(
                f"The {name} was not called by forward_func (or its forward method "
                "was called directly, past its hooks, or in a thread of its own), "
                "so there is no attention to explain. Pass a module that runs, and "
                "call modules as functions, in the thread that explains."
            )
        elsewhere = ""
        if isinstance(model, Module) and not is_model:
            names = [info.name for info in find_attention_layers(model, *arguments)]
            elsewhere = f" Attention was found in: {', '.join(names) or 'none'}."
        raise ValueError(
            f"No attention was found in the {name}: it neither calls "
            "scaled_dot_product_attention or nn.MultiheadAttention nor weighs "
            f"values with a softmax.{elsewhere}{_untracked(recorder)}"
        )


def warn_of_untracked(recorder: Recorder) -> None:
    """Warn of attention that was seen and could not be followed to its values."""
    if recorder.lost:
        warn(_untracked(recorder).strip())


def _untracked(recorder: Recorder) -> str:
    if not recorder.lost:
        return ""
    listed = ", ".join(
        f"{layer or 'the model itself'!r} (lost at {operation!r})"
        for layer, operation in recorder.lost
    )
    return (
        " A softmax weighs values after an operation that cannot be followed, so its "
        f"attention is not part of the scores: {listed}."
    )


def check_on_path(
    calls: Sequence[AttentionCall], needed: Sequence[Module] = ()
) -> None:
    """
    Layers on which the score does not depend count as 0, with a warning.

    Args:
        calls (sequence of AttentionCall): calls with gradients.
        needed (sequence of Module): layers on which the score must depend.

    Raises:
        RuntimeError: if the score depends on no call, or not on a needed layer.
    """
    reached = {scope for call in calls if call.on_path for scope in call.scopes}
    for i, layer in enumerate(needed):
        if i not in reached:
            names = sorted({repr(call.layer) for call in calls if i in call.scopes})
            raise RuntimeError(
                f"The attention weights of layer {type(layer).__name__} "
                f"({', '.join(names)}) are not on the path to the output that is "
                f"explained: {_NO_PATH}"
            )
    if needed:
        return
    used = {call.layer for call in calls if call.on_path}
    others = ", ".join(repr(n) for n in sorted({c.layer for c in calls} - used))
    if not used:
        raise RuntimeError(
            f"None of the attention weights ({others}) are on the path to the output "
            f"that is explained: {_NO_PATH}"
        )
    if others:
        warn(
            f"The score does not depend on the attention weights of {others}; they "
            "count as 0."
        )
