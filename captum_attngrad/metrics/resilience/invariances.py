r"""
Changes of a model that provably leave the function it computes alone.

Each takes a model and returns a changed copy; the model itself is not modified. They
apply to

- ``nn.MultiheadAttention`` (alone or in PyTorch's transformer layers) and BERT-like
  models of Hugging Face;
- models made of ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` with additive attention, if
  ``run`` is given, or if their class has been registered
  (:func:`~captum_attngrad.metrics.resilience.recurrent.register_recurrent_attention`);
- modules of your own, anywhere in the model, for which a change has been registered
  (:func:`register_invariance`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from captum_attngrad.metrics._parameters import NotApplicableError, copied, normal
from captum_attngrad.metrics.resilience.attention_projections import (
    AttentionProjections,
    attention_projections,
)
from captum_attngrad.metrics.resilience.input_shift import shift_inputs
from captum_attngrad.metrics.resilience.recurrent import (
    Run,
    add_score_constant,
    flip_states,
    permute_states,
    recurrent_attentions,
)


class InvariantChange(Protocol):
    """Maps a model to a changed copy that computes the same function."""

    def __call__(
        self, model: nn.Module, seed: int = 0, *, run: Run | None = None
    ) -> nn.Module: ...


#: Changes a module in place, drawing from the generator; its function stays the same.
ModuleChange = Callable[[nn.Module, torch.Generator], None]

_REGISTERED: dict[str, dict[type[nn.Module], ModuleChange]] = {}


def register_invariance(
    change: str, model_type: type[nn.Module]
) -> Callable[[ModuleChange], ModuleChange]:
    r"""
    Decorator that registers how a change is made in modules of a class, which may be
    whole models or parts of one.

    Args:
        change (str): Name of the change: one in ``INVARIANT_CHANGES``, or a new one,
            which is added there.
        model_type (type): The class; subclasses are included.

    Returns:
        *Callable*: Takes a function that changes the module in place. It gets the
        module and a ``torch.Generator`` to draw from.

    Examples::

        >>> @register_invariance("permutation", MyEncoder)
        ... def permute(module, generator):
        ...     order = torch.randperm(module.size, generator=generator)
        ...     module.up.weight.data = module.up.weight.data[order]
        ...     module.down.weight.data = module.down.weight.data[:, order]
    """

    def register(function: ModuleChange) -> ModuleChange:
        _REGISTERED.setdefault(change, {})[model_type] = function
        if change not in INVARIANT_CHANGES:
            INVARIANT_CHANGES[change] = _only_registered(change)
        return function

    return register


def _only_registered(change: str) -> InvariantChange:
    def changed_copy(
        model: nn.Module, seed: int = 0, *, run: Run | None = None
    ) -> nn.Module:
        return _Change(change, model, seed, run).result()

    return changed_copy


class _Change:
    """A change in the making: the copy, and whether anything in it was changed."""

    def __init__(self, name: str, model: nn.Module, seed: int, run: Run | None) -> None:
        self.name = name
        self.model = copied(model)
        self.generator = torch.Generator().manual_seed(seed)
        self.recurrent = list(recurrent_attentions(model, run))
        self.projections = list(attention_projections(self.model))
        self.applied = False
        registered = _REGISTERED.get(name, {})
        for module in self.model.modules():
            kinds = (kind for kind in type(module).__mro__ if kind in registered)
            kind = next(kinds, None)
            if kind is not None:
                with torch.no_grad():
                    registered[kind](module, self.generator)
                self.applied = True

    def bias(
        self, of: tuple[Tensor, Tensor | None], layer: AttentionProjections, what: str
    ) -> Tensor:
        """The bias of a projection."""
        if of[1] is None:
            raise NotApplicableError(
                f"{self.name}: the {what} projection of {layer.name or 'the layer'!r} "
                "has no bias to take the constant."
            )
        return of[1]

    def constant(self, weight: Tensor, scale: float) -> Tensor:
        """A vector about as large, per number, as what ``weight`` gives for inputs of
        variance 1."""
        size = scale * float(weight.std()) * weight.shape[1] ** 0.5
        return normal(weight[:, 0], self.generator, size)

    def result(self) -> nn.Module:
        """The changed copy."""
        if not self.applied:
            raise NotApplicableError(
                f"{self.name}: {type(self.model).__name__} has no attention layer of a "
                "known layout that the change applies to; expected "
                "nn.MultiheadAttention, a BERT-like model of Hugging Face, additive "
                "attention over an nn.LSTM or nn.GRU, or a module that was registered "
                "with register_invariance."
            )
        return self.model


def add_key_constant(
    model: nn.Module, seed: int = 0, scale: float = 1.0, *, run: Run | None = None
) -> nn.Module:
    r"""
    Adds a constant vector to all keys of every attention layer.

    :math:`q \cdot (k + c) = q \cdot k + q \cdot c` moves all scores of a query equally,
    which cancels in the softmax. The constant goes to the bias of the key projection.
    In recurrent models with additive attention, a constant is added to the attention
    scores.

    Args:
        model (nn.Module): The model.
        seed (int): Seed of the constant.
            Default: 0
        scale (float): Its size, relative to what the projection gives for inputs of
            variance 1.
            Default: 1.0
        run (Callable, optional): Runs the model on some input and returns its output,
            to find the layers of recurrent models that are not registered.
            Default: None

    Returns:
        *nn.Module*: A changed copy.

    Raises:
        NotApplicableError: If there is no attention layer of a known layout, or it has
            no bias.
    """
    change = _Change("key_constant", model, seed, run)
    for layer in change.projections:
        bias = change.bias(layer.key, layer, "key")
        bias += change.constant(layer.key[0], scale)
        change.applied = True
    for layout in change.recurrent:
        change.applied |= add_score_constant(change.model, layout, scale)
    return change.result()


def add_value_constant(
    model: nn.Module, seed: int = 0, scale: float = 1.0, *, run: Run | None = None
) -> nn.Module:
    r"""
    Adds a constant vector :math:`c` to all values and subtracts :math:`W_o c` from the
    output projection's bias.

    The weights of a query sum to one, so its output moves by :math:`c`, and the bias
    undoes that. Arguments and errors are those of :func:`add_key_constant`. It does not
    apply to recurrent models, whose values are states without a bias.

    Returns:
        *nn.Module*: A changed copy.
    """
    change = _Change("value_constant", model, seed, run)
    for layer in change.projections:
        value_bias = change.bias(layer.value, layer, "value")
        output_bias = change.bias(layer.output, layer, "output")
        constant = change.constant(layer.value[0], scale)
        value_bias += constant
        output_bias -= (layer.output[0].double() @ constant.double()).to(output_bias)
        change.applied = True
    return change.result()


def _change_of_basis(size: int, generator: torch.Generator) -> Tensor:
    """A random invertible matrix in float64 that stretches by factors from ½ to 2."""
    turns = [
        torch.linalg.qr(torch.randn(size, size, generator=generator).double())[0]
        for _ in range(2)
    ]
    stretch = 4.0 ** (torch.rand(size, generator=generator).double() - 0.5)
    basis: Tensor = (turns[0] * stretch) @ turns[1]
    return basis


def change_value_basis(
    model: nn.Module, seed: int = 0, *, run: Run | None = None
) -> nn.Module:
    r"""
    Expresses the values of each head in another basis: :math:`v \to R v` and
    :math:`W_o \to W_o R^{-1}` for a random invertible :math:`R` that stretches by
    factors from ½ to 2.

    In recurrent models the values are states behind a tanh, which only allows sign
    changes: the signs of random state units are flipped, in all layers that write and
    read them.

    Args:
        model (nn.Module): The model.
        seed (int): Seed of the basis.
            Default: 0
        run (Callable, optional): As for :func:`add_key_constant`.
            Default: None

    Returns:
        *nn.Module*: A changed copy.

    Raises:
        NotApplicableError: If there is no attention layer of a known layout.
    """
    change = _Change("value_basis", model, seed, run)
    for layer in change.projections:
        (value, bias), (output, _) = layer.value, layer.output
        for head in range(layer.n_heads):
            rows = layer.head_rows(head)
            basis = _change_of_basis(rows.stop - rows.start, change.generator)
            basis = basis.to(value.device)
            value[rows] = (basis @ value[rows].double()).to(value)
            if bias is not None:
                bias[rows] = (basis @ bias[rows].double()).to(bias)
            back = output[:, rows].double() @ torch.linalg.inv(basis)
            output[:, rows] = back.to(output)
        change.applied = True
    for layout in change.recurrent:
        flip_states(change.model, layout, change.generator)
        change.applied = True
    return change.result()


def permute_units(
    model: nn.Module, seed: int = 0, *, run: Run | None = None
) -> nn.Module:
    r"""
    Permutes the heads of every attention layer; in recurrent models, which have a
    single head, the units of the recurrent layer.

    Args:
        model (nn.Module): The model.
        seed (int): Seed of the permutations.
            Default: 0
        run (Callable, optional): As for :func:`add_key_constant`.
            Default: None

    Returns:
        *nn.Module*: A changed copy.

    Raises:
        NotApplicableError: If there is no attention layer of a known layout, or none
            has several heads.
    """
    change = _Change("permutation", model, seed, run)
    for layout in change.recurrent:
        permute_states(change.model, layout, change.generator)
        change.applied = True
    layers = change.projections
    if layers and not change.applied and all(layer.n_heads == 1 for layer in layers):
        raise NotApplicableError(
            "permutation: every attention layer has a single head, so there is nothing "
            "to permute."
        )
    for layer in layers:
        heads = _permutation(layer.n_heads, change.generator)
        rows = torch.arange(len(layer.value[0])).reshape(layer.n_heads, -1)[heads]
        order = rows.flatten().to(layer.value[0].device)
        for weight, bias in (layer.query, layer.key, layer.value):
            weight.copy_(weight[order])
            if bias is not None:
                bias.copy_(bias[order])
        layer.output[0].copy_(layer.output[0][:, order])
        change.applied = True
    return change.result()


def _permutation(size: int, generator: torch.Generator) -> Tensor:
    """A random order other than the identity, if there is one."""
    order = torch.randperm(size, generator=generator)
    return order.roll(1) if torch.equal(order, torch.arange(size)) else order


def _shifted(model: nn.Module, seed: int = 0, *, run: Run | None = None) -> nn.Module:
    kinds = tuple(_REGISTERED.get("input_shift", ()))
    if any(isinstance(module, kinds) for module in model.modules()):
        return _Change("input_shift", model, seed, None).result()
    return shift_inputs(model, seed, run=run)


#: The changes by name; each maps (model, seed) to a changed copy.
INVARIANT_CHANGES: dict[str, InvariantChange] = {
    "key_constant": add_key_constant,
    "value_constant": add_value_constant,
    "value_basis": change_value_basis,
    "input_shift": _shifted,
    "permutation": permute_units,
}
