"""Which attention calls go from the outputs of a sequence model to its source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from captum_attngrad.attr._core.layer_calls import LayerCalls
from captum_attngrad.attr._core.run import gradients
from captum_attngrad.attr.sequence._diagonal_gradients import OutputCall
from captum_attngrad.capture.calls import AttentionCall

# Which of some calls have no row that influences an earlier output.
OfOutputs = Callable[[list[AttentionCall]], list[bool]]


def source_attention(
    layers: list[LayerCalls], outputs: int, named: int, of_outputs: OfOutputs
) -> list[LayerCalls]:
    """The calls that give each output its own row, over the keys of the source.

    A module counts if it attends with one query for each output (a transformer's
    decoder), or is called once for each output with one query and always the same
    number of keys (a recurrent decoder). Where some of these modules attend to the
    source and others to the outputs themselves, the first are chosen.

    Args:
        layers: the recorded calls of each attention module.
        outputs (int): number of outputs.
        named (int): how many layers the user has named; 0 if none. If each of them is
            a single module, all are explained.
        of_outputs (Callable): tells the attention of the outputs from that of an
            encoder if lengths do not; costs a backward pass.

    Raises:
        ValueError: if there is none, or it cannot be distinguished from
            self-attention.
    """
    fitting = [
        replace(layer, replicas=[_fitting(calls, outputs) for calls in layer.replicas])
        for layer in layers
    ]
    fitting = [layer for layer in fitting if all(layer.replicas)]
    if not fitting:
        raise ValueError(_nothing_fits(layers, outputs))
    # Keys whose number is not that of the outputs are the source.
    source = [layer for layer in fitting if _is_of_source(layer, outputs)]
    if source or len(fitting) == 1:
        return source or fitting
    if len(fitting) == named and len(set(map(_is_causal, fitting))) == 1:
        return fitting
    if outputs == 1:
        raise ValueError(
            "Source and output both have one token, so that attention to the source "
            "looks like self-attention. Pass the modules that attend to the source as "
            f"layer: some of {names_of(fitting)}."
        )
    # There are as many keys as outputs. Self-attention of the outputs is causal, and
    # the rows of an encoder influence all outputs.
    free = [layer for layer in fitting if not _is_causal(layer)]
    if len(free) < 2:
        return free or fitting
    of_decoder = of_outputs([layer.calls[0] for layer in free])
    found = [layer for layer, is_one in zip(free, of_decoder, strict=True) if is_one]
    # In a decoder that is not causal, self-attention of the last layer looks the same.
    if len(found) == 1 or (found and len(free) < len(fitting)):
        return found
    raise ValueError(
        f"Source and outputs both have {outputs} tokens, and the model has no causal "
        "self-attention, so that attention to the source looks like other attention. "
        "Pass the modules that attend to the source as layer: some of "
        f"{names_of(free)}."
    )


def _fitting(calls: list[AttentionCall], outputs: int) -> list[AttentionCall]:
    """The calls of one module that belong to outputs."""
    rows = [call for call in calls if call.query_length == outputs]
    if rows and (outputs > 1 or len(rows) == len(calls)):
        return rows
    keys = {call.key_length for call in calls}
    steps = len(calls) == outputs and len(keys) == 1
    return calls if steps and all(c.query_length == 1 for c in calls) else []


def is_stepwise(calls: list[AttentionCall], outputs: int) -> bool:
    """Whether each call belongs to one output."""
    return outputs > 1 and calls[0].query_length == 1


def _is_of_source(layer: LayerCalls, outputs: int) -> bool:
    calls = layer.replicas[0]
    return is_stepwise(calls, outputs) or calls[0].key_length != outputs


def _is_causal(layer: LayerCalls) -> bool:
    """Whether no query may attend to what comes after it, in any call."""
    for call in layer.calls:
        allowed = call.allowed()
        if allowed is None or bool(allowed.triu(1).any()):
            return False
    return True


def names_of(layers: list[LayerCalls]) -> str:
    return ", ".join(repr(layer.name) for layer in layers)


def _nothing_fits(layers: list[LayerCalls], outputs: int) -> str:
    listed = []
    for layer in layers:
        calls = layer.replicas[0]
        queries = sorted({call.query_length for call in calls})
        keys = sorted({call.key_length for call in calls})
        times = f"{len(calls)} calls" if len(calls) > 1 else "1 call"
        listed.append(f"{layer.name!r} ({times}, {_range(queries)} x {_range(keys)})")
    return (
        f"forward_func returned {outputs} outputs, and no attention has one row for "
        f"each of them: neither {outputs} queries in one call, nor {outputs} calls "
        "with one query each and the same keys. Found (queries x keys): "
        f"{'; '.join(listed)}. forward_func must return all outputs of the decoder; "
        "set the targets of those that you do not want to explain to ignore_index."
    )


def _range(sizes: list[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}..{sizes[-1]}"


def output_calls(layers: list[LayerCalls], outputs: int) -> list[OutputCall]:
    """Which output used each call. Calls on which no output can depend are left
    out."""
    found = []
    for layer in layers:
        first = 0
        for calls in layer.replicas:
            stepwise = is_stepwise(calls, outputs)
            found += [
                OutputCall(call, t if stepwise else None, first)
                for t, call in enumerate(calls)
                if call.sources
            ]
            first += calls[0].batch_size
    return found


def influence_no_earlier_output(
    output: Tensor, calls: list[AttentionCall]
) -> list[bool]:
    """Whether the first output depends on the first row of each call alone."""
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(output[:, 0].shape, generator=generator).to(output)
    found = iter(
        gradients(
            (output[:, 0] * mixture).sum(),
            [source for call in calls for source in call.sources[:1]],
        )
    )
    results = []
    for call in calls:
        gradient = next(found) if call.sources else None
        results.append(
            gradient is not None
            and call.query_dim is not None
            and _only_first_row(gradient, call.query_dim)
        )
    return results


def _only_first_row(gradient: Tensor, rows_dim: int) -> bool:
    """Whether the gradient is 0 in all rows but the first."""
    later = gradient.narrow(rows_dim, 1, gradient.shape[rows_dim] - 1)
    return float(later.abs().max()) <= 1e-6 * float(gradient.abs().max())
