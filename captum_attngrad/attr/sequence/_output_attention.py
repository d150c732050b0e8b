"""Which attention calls belong to the outputs of a sequence model, and look at its
source."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_attngrad.attr._core.heads import Calls
from captum_attngrad.attr.sequence._output_gradients import OwnCall
from captum_attngrad.capture.calls import AttentionCall

Layers = list[tuple[str, Calls]]
# Of some calls: which of them have no row that influences an earlier output.
OfOutputs = Callable[[list[AttentionCall]], list[bool]]


def output_attention(
    layers: Layers, outputs: int, named: int, of_outputs: OfOutputs
) -> Layers:
    """The calls that give each output its own row, over the keys of the source.

    A module counts if it attends with one query for each output (a transformer's
    decoder), or is called once for each output with one query and always the same
    number of keys (a recurrent decoder). Where some of these modules attend to the
    source and others to the outputs themselves, the first are chosen.

    Args:
        layers: the recorded calls of each attention module.
        outputs (int): number of outputs.
        named (int): how many layers the user has named; 0 if none. Where every one is
            a single module, there is nothing to tell apart.
        of_outputs (Callable): tells the attention of the outputs from that of an
            encoder where lengths do not; costs a backward pass.

    Raises:
        ValueError: if there is none, or it cannot be told from self-attention.
    """
    fitting = [
        (name, [_fitting(calls, outputs) for calls in parts]) for name, parts in layers
    ]
    fitting = [(name, parts) for name, parts in fitting if all(parts)]
    if not fitting:
        raise ValueError(_nothing_fits(layers, outputs))
    # Keys that are no outputs are the source.
    source = [layer for layer in fitting if _is_of_source(layer[1], outputs)]
    if source or len(fitting) == 1:
        return source or fitting
    if len(fitting) == named and len({_is_causal(parts) for _, parts in fitting}) == 1:
        return fitting
    if outputs == 1:
        raise ValueError(
            "Source and output both have one token, so that attention to the source "
            "looks like self-attention. Pass the modules that attend to the source as "
            f"layer: some of {_names(fitting)}."
        )
    # As many keys as outputs: self-attention of the outputs is causal, and the rows of
    # an encoder influence all outputs.
    free = [layer for layer in fitting if not _is_causal(layer[1])]
    if len(free) < 2:
        return free or fitting
    own = of_outputs([parts[0][0] for _, parts in free])
    found = [layer for layer, is_own in zip(free, own, strict=True) if is_own]
    # In a decoder that is not causal, self-attention of the last layer looks the same.
    if len(found) == 1 or (found and len(free) < len(fitting)):
        return found
    raise ValueError(
        f"Source and outputs both have {outputs} tokens, and the model has no causal "
        "self-attention, so that attention to the source cannot be told from other "
        "attention. Pass the modules that attend to the source as layer: some of "
        f"{_names(free)}."
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


def _is_of_source(parts: Calls, outputs: int) -> bool:
    first = parts[0]
    return is_stepwise(first, outputs) or first[0].key_length != outputs


def _is_causal(parts: Calls) -> bool:
    """Whether no query may attend to what comes after it, in any call."""
    for part in parts:
        for call in part:
            allowed = call.allowed()
            if allowed is None or bool(allowed.triu(1).any()):
                return False
    return True


def _names(layers: Layers) -> str:
    return ", ".join(repr(name) for name, _ in layers)


def _nothing_fits(layers: Layers, outputs: int) -> str:
    listed = []
    for name, parts in layers:
        calls = parts[0]
        queries = sorted({call.query_length for call in calls})
        keys = sorted({call.key_length for call in calls})
        times = f"{len(calls)} calls" if len(calls) > 1 else "1 call"
        listed.append(f"{name!r} ({times}, {_range(queries)} x {_range(keys)})")
    return (
        f"forward_func returned {outputs} outputs, and no attention has one row for "
        f"each of them: neither {outputs} queries in one call, nor {outputs} calls "
        "with one query each and the same keys. Found (queries x keys): "
        f"{'; '.join(listed)}. forward_func must return all outputs of the decoder; "
        "those that are not to be explained get ignore_index in targets."
    )


def _range(sizes: list[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]}..{sizes[-1]}"


def own_calls(layers: Layers, outputs: int) -> list[OwnCall]:
    """Whose each call is; calls that the output cannot depend on are left out."""
    found = []
    for _, parts in layers:
        first = 0
        for calls in parts:
            stepwise = is_stepwise(calls, outputs)
            found += [
                OwnCall(call, t if stepwise else None, first)
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
    found = torch.autograd.grad(
        (output[:, 0] * mixture).sum(),
        [source for call in calls for source in call.sources[:1]],
        retain_graph=True,
        allow_unused=True,
    )
    gradients = iter(found)
    own = []
    for call in calls:
        gradient = next(gradients) if call.sources else None
        own.append(
            gradient is not None
            and call.query_dim is not None
            and _rows_are_own(gradient, call.query_dim)
        )
    return own


def _rows_are_own(gradient: Tensor, rows_dim: int) -> bool:
    """Whether the gradient of the first output is 0 in all rows but the first."""
    later = gradient.narrow(rows_dim, 1, gradient.shape[rows_dim] - 1)
    return float(later.abs().max()) <= 1e-6 * float(gradient.abs().max())
