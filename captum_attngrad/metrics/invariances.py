r"""
Changes of a model that provably leave the function it computes alone.

Each takes a model and returns a changed copy; the model itself is not touched. Known
are ``nn.MultiheadAttention`` (alone or in PyTorch's transformer layers), BERT-like
models of Hugging Face, and
:class:`~captum_attngrad.models.AttentionLSTMClassifier`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_attngrad.metrics import _lstm_changes as lstm
from captum_attngrad.metrics._attention_parts import AttentionParts, attention_parts
from captum_attngrad.metrics._copies import NotApplicableError, copied, normal
from captum_attngrad.metrics.input_shift import shift_inputs
from captum_attngrad.models.lstm_classifier import AttentionLSTMClassifier


def _parts(model: nn.Module, change: str) -> list[AttentionParts]:
    parts = list(attention_parts(model))
    if not parts:
        raise NotApplicableError(
            f"{change}: {type(model).__name__} has no attention layer of a known "
            "layout; expected nn.MultiheadAttention, a BERT-like model of Hugging Face "
            "or AttentionLSTMClassifier."
        )
    return parts


def _bias(bias: Tensor | None, change: str, parts: AttentionParts, what: str) -> Tensor:
    if bias is None:
        raise NotApplicableError(
            f"{change}: the {what} projection of {parts.name or 'the layer'!r} has no "
            "bias to take the constant."
        )
    return bias


def _constant(weight: Tensor, generator: torch.Generator, scale: float) -> Tensor:
    """A vector about as large, per number, as what ``weight`` gives for inputs of
    variance 1."""
    size = scale * float(weight.std()) * weight.shape[1] ** 0.5
    return normal(weight[:, 0], generator, size)


def add_key_constant(model: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    r"""
    Adds a constant vector to all keys of every attention layer.

    :math:`q \cdot (k + c) = q \cdot k + q \cdot c` moves all scores of a query alike,
    which cancels in the softmax. The constant goes to the bias of the key projection.
    In ``AttentionLSTMClassifier``, whose keys are the states themselves, a constant is
    added to the attention scores.

    Args:
        model (nn.Module): The model.
        seed (int): Seed of the constant.
            Default: 0
        scale (float): Its size, relative to what the projection gives for inputs of
            variance 1.
            Default: 1.0

    Returns:
        *nn.Module*: A changed copy.

    Raises:
        NotApplicableError: If there is no attention layer of a known layout, or it has
            no bias.
    """
    changed = copied(model)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(changed, AttentionLSTMClassifier):
        lstm.add_score_constant(changed, scale)
        return changed
    for parts in _parts(changed, "key_constant"):
        bias = _bias(parts.key[1], "key_constant", parts, "key")
        bias += _constant(parts.key[0], generator, scale)
    return changed


def add_value_constant(
    model: nn.Module, seed: int = 0, scale: float = 1.0
) -> nn.Module:
    r"""
    Adds a constant vector :math:`c` to all values and takes :math:`W_o c` off the
    output projection's bias.

    The weights of a query sum to one, so its output moves by :math:`c` and the bias
    takes that back. Arguments and errors are those of :func:`add_key_constant`. Not
    applicable to ``AttentionLSTMClassifier``: its values are the states of an LSTM,
    which have no bias.

    Returns:
        *nn.Module*: A changed copy.
    """
    changed = copied(model)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(changed, AttentionLSTMClassifier):
        raise NotApplicableError(
            "value_constant: the values of AttentionLSTMClassifier are the states of "
            "its LSTM, which have no bias to take the constant."
        )
    for parts in _parts(changed, "value_constant"):
        value_bias = _bias(parts.value[1], "value_constant", parts, "value")
        output_bias = _bias(parts.output[1], "value_constant", parts, "output")
        constant = _constant(parts.value[0], generator, scale)
        value_bias += constant
        output_bias -= (parts.output[0].double() @ constant.double()).to(output_bias)
    return changed


def _change_of_basis(size: int, generator: torch.Generator) -> Tensor:
    """A random invertible matrix in float64 that stretches by factors from ½ to 2."""
    turns = [
        torch.linalg.qr(torch.randn(size, size, generator=generator).double())[0]
        for _ in range(2)
    ]
    stretch = 4.0 ** (torch.rand(size, generator=generator).double() - 0.5)
    basis: Tensor = (turns[0] * stretch) @ turns[1]
    return basis


def change_value_basis(model: nn.Module, seed: int = 0) -> nn.Module:
    r"""
    Expresses the values of each head in another basis: :math:`v \to R v` and
    :math:`W_o \to W_o R^{-1}` for a random invertible :math:`R` that stretches by
    factors from ½ to 2.

    In ``AttentionLSTMClassifier`` the values are states behind a tanh, which leaves
    sign changes: the signs of random state units are flipped, in all that writes and
    reads them.

    Args:
        model (nn.Module): The model.
        seed (int): Seed of the basis.
            Default: 0

    Returns:
        *nn.Module*: A changed copy.

    Raises:
        NotApplicableError: If there is no attention layer of a known layout.
    """
    changed = copied(model)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(changed, AttentionLSTMClassifier):
        lstm.flip_states(changed, generator)
        return changed
    for parts in _parts(changed, "value_basis"):
        (value, bias), (output, _) = parts.value, parts.output
        for head in range(parts.n_heads):
            rows = parts.head_rows(head)
            basis = _change_of_basis(rows.stop - rows.start, generator).to(value.device)
            value[rows] = (basis @ value[rows].double()).to(value)
            if bias is not None:
                bias[rows] = (basis @ bias[rows].double()).to(bias)
            back = output[:, rows].double() @ torch.linalg.inv(basis)
            output[:, rows] = back.to(output)
    return changed


def permute_units(model: nn.Module, seed: int = 0) -> nn.Module:
    r"""
    Permutes the heads of every attention layer; in ``AttentionLSTMClassifier``, which
    has a single head, the hidden units of its LSTM and of its attention.

    Args:
        model (nn.Module): The model.
        seed (int): Seed of the permutations.
            Default: 0

    Returns:
        *nn.Module*: A changed copy.

    Raises:
        NotApplicableError: If there is no attention layer of a known layout, or none
            has several heads.
    """
    changed = copied(model)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(changed, AttentionLSTMClassifier):
        lstm.permute_units(changed, generator)
        return changed
    all_parts = _parts(changed, "permutation")
    if all(parts.n_heads == 1 for parts in all_parts):
        raise NotApplicableError(
            "permutation: every attention layer has a single head, so there is nothing "
            "to permute."
        )
    for parts in all_parts:
        heads = _permutation(parts.n_heads, generator)
        rows = torch.arange(len(parts.value[0])).reshape(parts.n_heads, -1)[heads]
        order = rows.flatten().to(parts.value[0].device)
        for weight, bias in (parts.query, parts.key, parts.value):
            weight.copy_(weight[order])
            if bias is not None:
                bias.copy_(bias[order])
        parts.output[0].copy_(parts.output[0][:, order])
    return changed


def _permutation(size: int, generator: torch.Generator) -> Tensor:
    """A random order that is not the one before, if there is another."""
    order = torch.randperm(size, generator=generator)
    return order.roll(1) if torch.equal(order, torch.arange(size)) else order


#: The changes by name; each maps (model, seed) to a changed copy.
INVARIANT_CHANGES: dict[str, Callable[[nn.Module, int], nn.Module]] = {
    "key_constant": add_key_constant,
    "value_constant": add_value_constant,
    "value_basis": change_value_basis,
    "input_shift": shift_inputs,
    "permutation": permute_units,
}
