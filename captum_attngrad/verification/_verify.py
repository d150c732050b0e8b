"""Check that the attention of a model is seen, and that its gradient is exact."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.inputs import Inputs, repeated
from captum_attngrad.attr._core.layer_calls import layer_calls
from captum_attngrad.attr._core.run import Runner
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.keys import KeyStatus
from captum_attngrad.capture.record import AttentionRecord
from captum_attngrad.verification._variation import (
    Direction,
    Vary,
    predicted_change,
    random_direction,
)
from captum_attngrad.verification.verification import (
    TOLERANCES,
    LayerVerification,
    Verification,
)

# Parameters up to which a copy in float64 is made.
_MAX_COPIED = 300_000_000
# Small steps for kinks of the model (ReLU), large ones where parts of it work in a
# smaller dtype (a normalization in float32, say).
_STEPS = {
    # The third steps over hardly any kink of a ReLU.
    torch.float64: (1e-3, 1e-4, 1e-6, 1e-2, 5e-2),
    torch.float32: (3e-2, 1e-2, 1e-1, 3e-3),
    torch.float16: (0.1, 0.3),
    torch.bfloat16: (0.3, 1.0),
}
# Below this share of the output, gradients are its rounding.
_VANISHED = 1e-7


def verify(
    model: Module,
    inputs: Inputs,
    *,
    layer: Module | list[Module] | None = None,
    forward_func: Callable[..., Any] | None = None,
    additional_forward_args: object | None = None,
) -> Verification:
    r"""
    Prove on a model of one's own that its attention is seen and its gradient exact: the
    first thing to do with an architecture that is not in the table of architectures.

    For every attention layer it reports how the layout of its weights (examples, heads,
    queries, keys) is known, whether the keys are the tokens of the input, and how far
    the attention gradient is from a finite difference: the weights of single calls are
    changed a little, by other amounts for every example, head, query and key, and what
    the output does is compared with what the gradient says. Fused attention stays
    fused.

    What is differentiated is a fixed random mixture of all outputs, so that no target
    has to be chosen. The finite differences are taken in float64, on a copy of the
    model, where ``forward_func`` is not given and the model has at most 300 million
    parameters; in the model's own dtype, with a larger tolerance, otherwise.

    Args:

        model (torch.nn.Module): The model, in ``eval()`` mode.
        inputs (Tensor or tuple[Tensor, ...]): Input for which the model is verified,
                    batch first, as for :meth:`AttentionGradient.attribute`. Two or more
                    examples also show whether they influence each other.
        layer (torch.nn.Module or list of torch.nn.Module, optional): The modules whose
                    attention is verified.
                    Default: None, all of the model
        forward_func (Callable, optional): What is called instead of the model.
                    Default: None, the model itself
        additional_forward_args (Any, optional): Further arguments of forward_func, one
                    argument or a tuple.
                    Default: None

    Returns:
        *Verification*: true if everything is exact. Printed, it is a table.

    Raises:
        TypeError: ``model`` is not a module.

    Examples::

        >>> found = verify(model, input_ids, additional_forward_args=attention_mask)
        >>> print(found)
        >>> assert found
    """
    if not isinstance(model, Module):
        raise TypeError(
            f"verify needs a torch.nn.Module, got {type(model).__name__}: "
            f"{model!r:.80}."
        )
    if forward_func is None:
        wide = _widened(model, layer, inputs, additional_forward_args)
        if wide is not None:
            try:
                return _verified(*wide)
            except (RuntimeError, TypeError, NotImplementedError):
                pass  # the model does not work in float64
    layers = model if layer is None else layer
    called = model if forward_func is None else forward_func
    return _verified(called, layers, inputs, additional_forward_args)


def _widened(
    model: Module,
    layer: Module | list[Module] | None,
    inputs: Inputs,
    additional_forward_args: object | None,
) -> tuple[Module, Module | list[Module], Inputs, object | None] | None:
    """Everything in float64, the model as a copy."""
    floats = [p for p in model.parameters() if p.is_floating_point()]
    if sum(p.numel() for p in floats) > _MAX_COPIED:
        return None
    layers = [layer] if isinstance(layer, Module) else layer
    try:
        copied, chosen = copy.deepcopy((model, layers))
        return (
            copied.double(),
            copied if chosen is None else chosen,
            _double(inputs),
            _double(additional_forward_args),
        )
    except Exception:
        return None  # a model that cannot be copied


def _double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(map(_double, value))
    return copy.deepcopy(value)


def _minus_mixture(output: Tensor, _: Any) -> Tensor:
    flat = output.flatten(1) if output.dim() > 1 else output.unsqueeze(1)
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(flat.shape[1], generator=generator).to(flat)
    total: Tensor = (flat * mixture).sum(dim=1)
    return -total / math.sqrt(flat.shape[1])


def _verified(
    called: Callable[..., Any],
    layers: Module | list[Module],
    inputs: Inputs,
    additional_forward_args: object | None,
) -> Verification:
    runner = Runner(
        called,
        [layers] if isinstance(layers, Module) else layers,
        loss_func=_minus_mixture,
        needs_every_layer=True,
    )
    dtype = _dtype_of(called, layers)
    tolerance = TOLERANCES[str(dtype).removeprefix("torch.")]
    name = str(dtype).removeprefix("torch.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is not on the path is in the table
        try:
            run = runner.run(
                inputs, None, additional_forward_args, graph=True, value_gradients=False
            )
        except (ValueError, NotImplementedError, RuntimeError) as error:
            if dtype is torch.float64 and isinstance(error, RuntimeError):
                raise
            return Verification((), (), None, False, (str(error),), name, tolerance)
        found, sizes, base = _layers(
            runner, run.record, inputs, additional_forward_args, dtype
        )
        independent: bool | None = run.record[0].batch_size > 1
        if not independent:
            independent = _takes_two(runner, inputs, additional_forward_args)
    problems: tuple[str, ...] = ()
    if independent is False:
        problems = ("the examples of a batch influence each other",)
    return Verification(
        tuple(found),
        tuple(run.record.lost),
        independent,
        bool(max(sizes) <= _VANISHED * base),
        problems,
        name,
        tolerance,
    )


def _takes_two(
    runner: Runner, inputs: Inputs, additional_forward_args: object | None
) -> bool | None:
    """Whether two copies of an example are kept apart; None: they cannot be run."""
    twice, _, more = repeated(inputs, None, additional_forward_args, 2)
    try:
        runner.record(twice, more)
    except ValueError:
        return False
    except Exception:
        return None
    return True


def _dtype_of(called: Any, layers: Module | list[Module]) -> torch.dtype:
    tops = [called] if isinstance(called, Module) else layers
    tops = tops if isinstance(tops, list) else [tops]
    for top in tops:
        for parameter in top.parameters():
            if parameter.dtype in _STEPS:
                return parameter.dtype
    return torch.get_default_dtype()


def _layers(
    runner: Runner,
    record: AttentionRecord,
    inputs: Inputs,
    additional_forward_args: object | None,
    dtype: torch.dtype,
) -> tuple[list[LayerVerification], list[float], float]:
    """What is found of each layer; how large its effects are; and the score."""
    generator = torch.Generator().manual_seed(0)
    found, sizes = [], []
    base = 0.0
    for layer in layer_calls(record):
        calls = layer.calls
        first = calls[0]
        error: float | None = None
        problem = ""
        if any(call.on_path for call in calls):
            try:
                directions = {
                    c.site_index: random_direction(c, generator) for c in calls
                }
                error, size, base = _error(
                    runner, directions, inputs, additional_forward_args, dtype
                )
                sizes.append(size)
            except (RuntimeError, NotImplementedError, ValueError) as failure:
                problem = str(failure)
        shape = (first.batch_size, first.heads, first.query_length, first.key_length)
        found.append(
            LayerVerification(
                layer.name,
                first.kind,
                " x ".join(map(str, shape)),
                len(calls),
                first.keys_are.proved_by,
                _worst(calls),
                error,
                problem,
            )
        )
    return found, sizes or [0.0], base


def _worst(calls: list[AttentionCall]) -> KeyStatus:
    return max((call.keys_are.status for call in calls), key=list(KeyStatus).index)


def _error(
    runner: Runner,
    directions: dict[int, Direction],
    inputs: Inputs,
    additional_forward_args: object | None,
    dtype: torch.dtype,
) -> tuple[float, float, float]:
    """The relative error, the size of the effect, and the size of the score."""
    predicted = sum(
        (predicted_change(each).double() for each in directions.values()),
        start=torch.zeros((), dtype=torch.float64),
    )
    best = float("inf")
    size = base = 0.0
    for step in _STEPS[dtype]:
        near, far = (
            _difference(runner, directions, inputs, additional_forward_args, size)
            for size in (step, 2 * step)
        )
        # Four points: what is left is of the fourth order in the step.
        measured = (8 * near[0] - far[0]) / (12 * step)
        base = near[1]
        size = max(float(measured.abs().max()), float(predicted.abs().max()))
        # Below this, differences of scores are their rounding.
        noise = 10 * torch.finfo(dtype).eps * base / step
        error = float((measured - predicted.to(measured)).abs().max())
        best = min(best, error / max(size, noise, torch.finfo(dtype).tiny))
        if best <= TOLERANCES[str(dtype).removeprefix("torch.")]:
            break
    return best, size, base


def _difference(
    runner: Runner,
    directions: dict[int, Direction],
    inputs: Inputs,
    additional_forward_args: object | None,
    step: float,
) -> tuple[Tensor, float]:
    """The score after a step forward minus that after one back, and its size."""
    up, down = (
        _score(runner, inputs, additional_forward_args, Vary(directions, each))
        for each in (step, -step)
    )
    return up - down, float(up.abs().max())


def _score(
    runner: Runner, inputs: Inputs, additional_forward_args: object | None, vary: Vary
) -> Tensor:
    with runner.open(
        inputs,
        additional_forward_args,
        runner.score_of(None, inputs),
        graph=False,
        intervention=vary,
    ) as opened:
        return opened.score.double()
