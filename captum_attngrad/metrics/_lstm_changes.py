r"""Changes of an :class:`AttentionLSTMClassifier` that leave its function alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_attngrad.models.lstm_classifier import AttentionLSTMClassifier

_GATES = 4  # input, forget, cell, output: the order of the rows in PyTorch
_CELL = 2


def add_score_constant(model: AttentionLSTMClassifier, constant: float) -> None:
    """Adds a constant to all attention scores, which cancels in the softmax."""
    score = model.attention.score
    bias = score._parameters["bias"]
    zero = score.weight.detach().new_zeros(1)
    score.bias = nn.Parameter((zero if bias is None else bias.detach()) + constant)


def _directions(model: AttentionLSTMClassifier) -> list[tuple[str, slice]]:
    """The end of the parameters' names, and the units in the joined states."""
    size = model.lstm.hidden_size
    return [("", slice(0, size)), ("_reverse", slice(size, 2 * size))]


def _parameter(model: AttentionLSTMClassifier, name: str) -> Tensor:
    return model.lstm.get_parameter(name).detach()


def _gates(model: AttentionLSTMClassifier, name: str) -> Tensor:
    """A parameter of the LSTM as (gates, units, ...)."""
    parameter = _parameter(model, name)
    return parameter.view(_GATES, -1, *parameter.shape[1:])


def flip_states(model: AttentionLSTMClassifier, generator: torch.Generator) -> None:
    """Flips the signs of half of the states, drawn at random: cell and state of a unit
    change sign when its cell gate does, and all that reads them is flipped too."""
    for end, units in _directions(model):
        size = units.stop - units.start
        sign = torch.ones(size)
        sign[torch.randperm(size, generator=generator)[: (size + 1) // 2]] = -1
        sign = sign.to(_parameter(model, "weight_hh_l0"))
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            cell = _gates(model, name + end)[_CELL]
            cell *= sign.reshape(-1, *[1] * (cell.dim() - 1))
        _parameter(model, f"weight_hh_l0{end}").mul_(sign)
        for reader in (model.attention.key_projection, model.classifier):
            reader.weight.detach()[:, units] *= sign


def permute_units(model: AttentionLSTMClassifier, generator: torch.Generator) -> None:
    """Permutes the units of the LSTM, in each direction, and those of the attention."""
    for end, units in _directions(model):
        order = torch.randperm(units.stop - units.start, generator=generator)
        order = order.to(_parameter(model, "weight_hh_l0").device)
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            gates = _gates(model, name + end)
            gates.copy_(gates[:, order])
        recurrent = _parameter(model, f"weight_hh_l0{end}")
        recurrent.copy_(recurrent[:, order])
        for reader in (model.attention.key_projection, model.classifier):
            columns = reader.weight.detach()[:, units]
            columns.copy_(columns[:, order])
    hidden, score = model.attention.key_projection, model.attention.score
    order = torch.randperm(hidden.out_features, generator=generator)
    order = order.to(hidden.weight.device)
    for parameter in (hidden.weight, hidden.bias):
        parameter.detach().copy_(parameter.detach()[order])
    score.weight.detach().copy_(score.weight.detach()[:, order])
