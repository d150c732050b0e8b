r"""
Changes of recurrent models with additive attention that leave their function alone.

The layers that matter are found by running the model: a candidate counts only if the
model's output proves it (:func:`find_recurrent_attention`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from captum_attngrad.capture._surroundings.threads import hooked
from captum_attngrad.metrics._parameters import NotApplicableError

#: Runs a model on some input and returns its output.
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class RecurrentAttention:
    r"""
    Names of the submodules of a recurrent model with attention.

    Args:
        recurrent (str): The ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``.
        readers (tuple of str): The ``nn.Linear`` layers whose input is the recurrent
            states or weighted means of them.
        score (str, optional): The ``nn.Linear`` whose only output is the attention
            score, which a softmax normalizes over the positions.
            Default: None
        hidden (str, optional): The ``nn.Linear`` whose output goes to ``score`` through
            a function of each number alone, such as tanh.
            Default: None
        embedding (str, optional): The ``nn.Embedding`` whose output goes to
            ``recurrent`` and nothing else.
            Default: None
    """

    recurrent: str
    readers: tuple[str, ...]
    score: str | None = None
    hidden: str | None = None
    embedding: str | None = None

    def inside(self, module: str) -> RecurrentAttention:
        """The names as seen from a model in which it is the submodule ``module``."""
        if not module:
            return self
        prefixed = {
            name: value and f"{module}.{value}"
            for name, value in vars(self).items()
            if name != "readers"
        }
        readers = tuple(f"{module}.{name}" for name in self.readers)
        return replace(self, **prefixed, readers=readers)


_REGISTERED: dict[type[nn.Module], RecurrentAttention] = {}


def register_recurrent_attention(
    model_type: type[nn.Module], layout: RecurrentAttention
) -> None:
    r"""
    Declares where the recurrent layer and the attention of a class of models are, so
    that the invariant changes apply to its instances, alone or as submodules.

    Models made of ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` and ``nn.Linear`` need no
    registration where the texts to run them on are known, as in
    :class:`~captum_attngrad.metrics.InvariantModelChanges`.

    Args:
        model_type (type): The class of the model.
        layout (RecurrentAttention): Names of its submodules.

    Examples::

        >>> register_recurrent_attention(
        ...     MyClassifier,
        ...     RecurrentAttention("lstm", ("attention.keys", "classifier")),
        ... )
    """
    _REGISTERED[model_type] = layout


def recurrent_attentions(
    model: nn.Module, run: Run | None
) -> Iterator[RecurrentAttention]:
    """The registered layouts of a model and its submodules, or else those that running
    it proves."""
    registered = [
        _REGISTERED[kind].inside(name)
        for name, module in model.named_modules()
        for kind in type(module).__mro__
        if kind in _REGISTERED
    ]
    if registered or run is None:
        yield from registered
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase) and module.proj_size == 0:
            found = find_recurrent_attention(model, name, run)
            if found is not None:
                yield found


def _close(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(
        first, second, rtol=1e-4, atol=1e-5 * float(second.abs().max())
    )


def _run_with(
    run: Run, *hooks: tuple[Callable[..., Any], Callable[..., Any]]
) -> Tensor:
    """The model's output with hooks, each given as (register, hook)."""
    with ExitStack() as stack:
        for register, hook in hooks:
            stack.enter_context(hooked(register, hook))
        return run()


def _width(recurrent: nn.RNNBase) -> int:
    return recurrent.hidden_size * (2 if recurrent.bidirectional else 1)


def _on_data(values: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Applies a function to a tensor or to the data of a packed sequence."""
    if isinstance(values, PackedSequence):
        return values._replace(data=function(values.data))
    return function(values)


class _Shuffle:
    """Reverses the order of the units of each direction and flips every other sign."""

    def __init__(self, recurrent: nn.RNNBase) -> None:
        self.size = recurrent.hidden_size
        self.n_directions = _width(recurrent) // self.size
        self.signs = torch.ones(self.size)
        self.signs[::2] = -1

    def __call__(self, states: Tensor) -> Tensor:
        units = states.reshape(*states.shape[:-1], self.n_directions, self.size)
        return (units.flip(-1) * self.signs.to(states)).reshape(states.shape)

    def undo(self, states: Tensor) -> Tensor:
        units = states.reshape(*states.shape[:-1], self.n_directions, self.size)
        return (units * self.signs.to(states)).flip(-1).reshape(states.shape)

    def last(self, states: Tensor) -> Tensor:
        """The same for last states (layers * directions, batch, units)."""
        top = states[-self.n_directions :]
        joined = self(torch.cat(list(top), dim=-1)).split(self.size, dim=-1)
        return torch.cat([states[: -self.n_directions], torch.stack(joined)])


@torch.no_grad()
def find_recurrent_attention(
    model: nn.Module, name: str, run: Run
) -> RecurrentAttention | None:
    r"""
    Finds the linear layers that read a recurrent layer's states by shuffling the states
    and undoing it at each layer that gets them shuffled: if the model's output stays
    the same, all readers have been found. Scores and embedding are found likewise.

    Args:
        model (nn.Module): The model, in evaluation mode.
        name (str): Name of its recurrent layer.
        run (Callable): Runs the model on some input and returns its output.

    Returns:
        *RecurrentAttention or None*: None if something other than a linear layer reads
        the states.
    """
    recurrent = model.get_submodule(name)
    assert isinstance(recurrent, nn.RNNBase)
    linears = {k: m for k, m in model.named_modules() if isinstance(m, nn.Linear)}
    expected = run()
    readers = _readers(recurrent, linears, run, expected)
    if not readers:
        return None
    scores = [
        key
        for key, linear in linears.items()
        if linear.out_features == 1 and _ignores_constant(linear, run, expected)
    ]
    embeddings = [
        key
        for key, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        and module.embedding_dim == recurrent.input_size
        and _feeds_only(module, recurrent, run, expected)
    ]
    return RecurrentAttention(
        name,
        readers,
        score=next(iter(scores), None),
        embedding=next(iter(embeddings), None),
    )


def _readers(
    recurrent: nn.RNNBase, linears: dict[str, nn.Linear], run: Run, expected: Tensor
) -> tuple[str, ...]:
    """The layers that read the states; none if others read them as well."""
    shuffle = _Shuffle(recurrent)
    inputs: dict[str, list[Tensor]] = {
        key: []
        for key, linear in linears.items()
        if linear.in_features == _width(recurrent)
    }
    reads: dict[str, list[bool]] = {key: [] for key in inputs}

    def shuffled(module: nn.Module, args: Any, output: Any) -> Any:
        states, last = output
        if isinstance(last, tuple):
            return _on_data(states, shuffle), tuple(map(shuffle.last, last))
        return _on_data(states, shuffle), shuffle.last(last)

    def note(key: str, module: nn.Module, args: Any) -> None:
        inputs[key].append(args[0])

    def undo(key: str, module: nn.Module, args: Any) -> Any:
        before = inputs[key][len(reads[key])]
        read = not _close(args[0], before) and _close(args[0], shuffle(before))
        reads[key].append(read)
        return (shuffle.undo(args[0]), *args[1:]) if read else args

    _run_with(
        run,
        *((linears[k].register_forward_pre_hook, partial(note, k)) for k in inputs),
    )
    output = _run_with(
        run,
        (recurrent.register_forward_hook, shuffled),
        *((linears[k].register_forward_pre_hook, partial(undo, k)) for k in inputs),
    )
    found = tuple(key for key, each in reads.items() if any(each))
    if not _close(output, expected) or not all(all(reads[key]) for key in found):
        return ()
    return found


def _ignores_constant(linear: nn.Linear, run: Run, expected: Tensor) -> bool:
    """Whether a constant in the layer's output leaves the model's output alone."""
    calls = []

    def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        calls.append(module)
        return output + 1

    output = _run_with(run, (linear.register_forward_hook, add))
    return bool(calls) and _close(output, expected)


def _feeds_only(
    embedding: nn.Embedding, recurrent: nn.RNNBase, run: Run, expected: Tensor
) -> bool:
    """Whether a constant in the embeddings can be subtracted again from the input of
    the recurrent layer."""
    constant = torch.linspace(0.5, 1.0, recurrent.input_size).to(embedding.weight)

    def subtract(module: nn.Module, args: Any) -> Any:
        return (_on_data(args[0], lambda data: data - constant), *args[1:])

    output = _run_with(
        run,
        (embedding.register_forward_hook, lambda module, args, out: out + constant),
        (recurrent.register_forward_pre_hook, subtract),
    )
    return _close(output, expected)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


def add_score_constant(
    model: nn.Module, layout: RecurrentAttention, constant: float
) -> bool:
    """Adds a constant to all attention scores, which cancels in the softmax. False if
    the layer of the scores is not known."""
    if layout.score is None:
        return False
    score = _linear(model, layout.score)
    bias = score._parameters["bias"]
    zero = score.weight.detach().new_zeros(1)
    score.bias = nn.Parameter((zero if bias is None else bias.detach()) + constant)
    return True


def _directions(recurrent: nn.RNNBase) -> Iterator[tuple[str, slice]]:
    """The end of the names of the top layer's parameters, and the direction's units in
    the joined states."""
    size = recurrent.hidden_size
    for direction, end in enumerate(("", "_reverse")[: _width(recurrent) // size]):
        units = slice(direction * size, (direction + 1) * size)
        yield f"_l{recurrent.num_layers - 1}{end}", units


def _gates(recurrent: nn.RNNBase, end: str) -> Iterator[Tensor]:
    """The weights and biases of a layer as (gates, units, ...)."""
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        parameter = getattr(recurrent, kind + end, None)
        if parameter is not None:
            values = parameter.detach()
            yield values.view(-1, recurrent.hidden_size, *values.shape[1:])


def flip_states(
    model: nn.Module, layout: RecurrentAttention, generator: torch.Generator
) -> None:
    """Flips the signs of half of the states, drawn at random. A unit's state changes
    sign when its cell (LSTM) or new gate (GRU) does; its readers are flipped too."""
    recurrent = model.get_submodule(layout.recurrent)
    assert isinstance(recurrent, nn.RNNBase)
    if recurrent.mode == "RNN_RELU":
        raise NotApplicableError(
            "value_basis: the states of an nn.RNN with relu have no sign to flip."
        )
    # The gate with the tanh is the third of an LSTM (input, forget, cell, output) and
    # of a GRU (reset, update, new), and the only one of a plain RNN.
    gate = 0 if recurrent.mode == "RNN_TANH" else 2
    for end, units in _directions(recurrent):
        size = recurrent.hidden_size
        sign = torch.ones(size)
        sign[torch.randperm(size, generator=generator)[: (size + 1) // 2]] = -1
        hidden = recurrent.get_parameter(f"weight_hh{end}").detach()
        sign = sign.to(hidden)
        for gates in _gates(recurrent, end):
            gates[gate] *= sign.reshape(-1, *[1] * (gates.dim() - 2))
        hidden *= sign
        for reader in layout.readers:
            _linear(model, reader).weight.detach()[:, units] *= sign


def permute_states(
    model: nn.Module, layout: RecurrentAttention, generator: torch.Generator
) -> None:
    """Permutes the units of each direction, and the hidden units of the attention."""
    recurrent = model.get_submodule(layout.recurrent)
    assert isinstance(recurrent, nn.RNNBase)
    for end, units in _directions(recurrent):
        order = torch.randperm(recurrent.hidden_size, generator=generator)
        hidden = recurrent.get_parameter(f"weight_hh{end}").detach()
        order = order.to(hidden.device)
        for gates in _gates(recurrent, end):
            gates.copy_(gates[:, order])
        hidden.copy_(hidden[:, order])
        for reader in layout.readers:
            columns = _linear(model, reader).weight.detach()[:, units]
            columns.copy_(columns[:, order])
    if layout.hidden is None or layout.score is None:
        return
    projection, score = _linear(model, layout.hidden), _linear(model, layout.score)
    order = torch.randperm(projection.out_features, generator=generator)
    order = order.to(projection.weight.device)
    for parameter in projection.parameters():
        parameter.detach().copy_(parameter.detach()[order])
    score.weight.detach().copy_(score.weight.detach()[:, order])
