"""Recurrent networks step by step, from the operations that have slopes.

torch runs ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` as one operation each. Here are the
same recurrences written out, under the arguments of that operation, one position of the
sequence after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of the others; each (batch, units)


def _lstm(x: Tensor, state: State, weights: Sequence[Tensor], bias: bool) -> State:
    h, c = state
    gates = x + F.linear(h, weights[1], _second(weights, bias))
    i, f, g, o = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    if len(weights) % 2:  # projected (proj_size)
        h = F.linear(h, weights[-1])
    return h, c


def _gru(x: Tensor, state: State, weights: Sequence[Tensor], bias: bool) -> State:
    (h,) = state
    hidden = F.linear(h, weights[1], _second(weights, bias))
    reset, update, new = x.chunk(3, dim=1)
    by_reset, by_update, by_new = hidden.chunk(3, dim=1)
    update = torch.sigmoid(update + by_update)
    new = torch.tanh(new + torch.sigmoid(reset + by_reset) * by_new)
    return ((1 - update) * new + update * h,)


def _rnn_tanh(x: Tensor, state: State, weights: Sequence[Tensor], bias: bool) -> State:
    return (torch.tanh(x + F.linear(state[0], weights[1], _second(weights, bias))),)


def _rnn_relu(x: Tensor, state: State, weights: Sequence[Tensor], bias: bool) -> State:
    return (torch.relu(x + F.linear(state[0], weights[1], _second(weights, bias))),)


def _second(weights: Sequence[Tensor], bias: bool) -> Tensor | None:
    return weights[3] if bias else None


_STEPS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu}
RECURRENT = frozenset({*_STEPS, *(f"{name}_cell" for name in _STEPS)})


def written_out(name: str, args: tuple[Any, ...]) -> Any:
    """The result of torch's operation of this name, one of ``RECURRENT``; None: it has
    to run itself."""
    if name.endswith("_cell"):
        return _cell(name.removesuffix("_cell"), *args)
    packed = isinstance(args[1], Tensor) and not args[1].is_floating_point()
    data, sizes, start, weights, bias, layers, dropout, train, both, *rest = (
        args if packed else (args[0], None, *args[1:])
    )
    if train and dropout > 0:
        return None
    state = (start,) if isinstance(start, Tensor) else tuple(start)
    batch_first = bool(rest and rest[0])
    if sizes is None:
        steps = data.transpose(0, 1) if batch_first else data
        counts = [steps.shape[1]] * steps.shape[0]
        output, last = _network(
            name, steps.flatten(0, 1), counts, state, weights, bias, layers, both
        )
        output = output.unflatten(0, steps.shape[:2])
        output = output.transpose(0, 1) if batch_first else output
    else:
        output, last = _network(
            name, data, sizes.tolist(), state, weights, bias, layers, both
        )
    return (output, *last)


def _cell(
    name: str,
    x: Tensor,
    start: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Any:
    state = (start,) if isinstance(start, Tensor) else tuple(start)
    bias = b_ih is not None and b_hh is not None
    weights = [w for w in (w_ih, w_hh, b_ih, b_hh) if w is not None]
    found = _STEPS[name](F.linear(x, w_ih, b_ih), state, weights, bias)
    return found if len(found) > 1 else found[0]


def _network(
    name: str,
    data: Tensor,
    counts: list[int],
    start: State,
    weights: Sequence[Tensor],
    bias: bool,
    layers: int,
    both: bool,
) -> tuple[Tensor, State]:
    """All layers and directions, on ``data`` as a PackedSequence has it: the rows of
    the first position, of the second, ..., ``counts`` of them each."""
    runs = layers * (2 if both else 1)
    each = len(weights) // runs
    last: list[State] = []
    for _ in range(layers):
        outputs = []
        for reverse in (False, True) if both else (False,):
            at = len(last)
            own = weights[at * each : (at + 1) * each]
            first = tuple(part[at] for part in start)
            output, final = _direction(name, data, counts, first, own, bias, reverse)
            outputs.append(output)
            last.append(final)
        data = torch.cat(outputs, dim=-1)
    return data, tuple(torch.stack(parts) for parts in zip(*last, strict=True))


def _direction(
    name: str,
    data: Tensor,
    counts: list[int],
    start: State,
    weights: Sequence[Tensor],
    bias: bool,
    reverse: bool,
) -> tuple[Tensor, State]:
    positions = F.linear(data, weights[0], weights[2] if bias else None).split(counts)
    order = range(len(counts))
    outputs: list[Tensor] = [data] * len(counts)
    running = counts[-1] if reverse else counts[0]
    state = tuple(part[:running] for part in start)
    ended: list[State] = []  # of the sequences that are over, the longest last
    for t in reversed(order) if reverse else order:
        running = len(state[0])
        if counts[t] < running:
            ended.append(tuple(part[counts[t] :] for part in state))
            state = tuple(part[: counts[t]] for part in state)
        elif counts[t] > running:
            new = (part[running : counts[t]] for part in start)
            state = tuple(torch.cat(two) for two in zip(state, new, strict=True))
        state = _STEPS[name](positions[t], state, weights, bias)
        outputs[t] = state[0]
    ended.append(state)
    final = tuple(torch.cat(parts) for parts in zip(*reversed(ended), strict=True))
    return torch.cat(outputs), final
