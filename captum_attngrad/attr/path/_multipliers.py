"""DeepLIFT's rules: the slope between two runs instead of the derivative.

The same model runs on a baseline and on an input. An operation ``y = f(x)`` on single
numbers gets the multiplier ``(y1 - y0) / (x1 - x0)`` (the rescale rule of Shrikumar et
al. 2017), a product ``a b`` the mean of the other factor in both runs, and LayerNorm,
RMSNorm and recurrent networks are taken apart into such operations. With these
multipliers a backward pass splits the change of the output completely among the changes
of the inputs. All other operations keep their derivative.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.attr.path._recurrent import RECURRENT, written_out
from captum_attngrad.capture._interventions import Intervention, Operation

# By the names of torch's functions and methods; all act on each number by itself.
_UNARY = frozenset(
    "relu relu6 gelu silu mish tanh sigmoid elu selu celu leaky_relu softplus "
    "softsign logsigmoid log_sigmoid hardtanh hardswish hardsigmoid tanhshrink erf "
    "exp expm1 log log1p sqrt rsqrt reciprocal square pow __pow__ __rpow__ __rdiv__ "
    "__rtruediv__ abs sin cos".split()
)
_PRODUCT = frozenset("mul multiply __mul__ __rmul__".split())
_QUOTIENT = frozenset("div divide true_divide __truediv__".split())
_RULED = _UNARY | _PRODUCT | _QUOTIENT


class Secants:
    """
    Compares the operations of two runs, and takes their slopes as multipliers.

    Each method makes the intervention for one forward pass: :meth:`on_baselines` and
    :meth:`on_inputs` for the two runs, and :meth:`as_derivatives` for a run on the
    inputs that is differentiated.
    """

    def __init__(self) -> None:
        self._baselines: deque[tuple[str, list[Tensor], Tensor]] = deque()
        self._multipliers: deque[tuple[str, list[Tensor] | None]] = deque()

    def on_baselines(self) -> Intervention:
        return _Rules(self._keep)

    def on_inputs(self) -> Intervention:
        return _Rules(self._compare, self._check_complete)

    def as_derivatives(self) -> Intervention:
        return _Rules(self._multiply)

    def _keep(self, name: str, operands: list[Tensor], call: _Call) -> Tensor:
        result = call(*operands)
        # Copies, since the model may go on in place.
        kept = [operand.clone() for operand in operands]
        self._baselines.append((name, kept, result.clone()))
        return result

    def _compare(self, name: str, operands: list[Tensor], call: _Call) -> Tensor:
        before, others, other = self._next(self._baselines, name)
        result = call(*operands)
        if [t.shape for t in operands] != [t.shape for t in others]:
            raise _other_way(name, before)
        found = None
        changed = [
            not torch.equal(one, two) for one, two in zip(operands, others, strict=True)
        ]
        if name in _UNARY and changed[0]:
            found = [_slope(operands[0], others[0], result, other, call)]
        elif name in _PRODUCT and all(changed):
            found = [(operands[1 - i] + others[1 - i]) / 2 for i in (0, 1)]
        elif name in _QUOTIENT and changed[1]:
            found = _of_quotient(operands, others)
        self._multipliers.append((name, found))
        return result

    def _check_complete(self) -> None:
        if self._baselines:
            raise _other_way("its end", self._baselines[0][0])

    def _multiply(self, name: str, operands: list[Tensor], call: _Call) -> Tensor:
        _, multipliers = self._next(self._multipliers, name)
        if multipliers is None:  # nothing but one factor has changed, if anything
            return call(*operands)
        slanted: Tensor = operands[0] * multipliers[0]
        if len(operands) > 1:
            slanted = slanted + operands[1] * multipliers[1]
        value: Tensor = call(*(operand.detach() for operand in operands))
        return slanted + (value - slanted).detach()

    @staticmethod
    def _next(waiting: deque[Any], name: str) -> Any:
        if not waiting or waiting[0][0] != name:
            raise _other_way(name, waiting[0][0] if waiting else "its end")
        return waiting.popleft()


def _other_way(now: str, before: str) -> RuntimeError:
    return RuntimeError(
        f"The model came to {now!r} on the inputs and to {before!r} on the baselines: "
        "it must do the same operations, on tensors of the same shapes, for both."
    )


class _Call:
    """A function with all but its operands filled in."""

    def __init__(
        self, func: Any, rest: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._func, self._rest = func, rest
        self._kwargs = {k: v for k, v in kwargs.items() if k != "inplace"}

    def __call__(self, *operands: Tensor) -> Tensor:
        result: Tensor = self._func(*operands, *self._rest, **self._kwargs)
        return result


class _Rules(Intervention):
    """
    Hands each operation that has a rule to a function.

    Args:
        rule (Callable): ``rule(name, operands, call)`` returns the result.
        end (Callable, optional): called when the forward pass has ended.
    """

    sees_operations = True

    def __init__(
        self,
        rule: Callable[[str, list[Tensor], _Call], Tensor],
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._rule, self._end = rule, end

    def end(self) -> None:
        self._end()

    def operation(self, operation: Operation) -> Any:
        func, args, kwargs = operation.func, operation.args, operation.kwargs
        name = operation.name
        if name in _NORMS:
            with operation.visible():
                return _NORMS[name](*args, **kwargs)
        if name in RECURRENT and not kwargs:
            with operation.visible():
                result = written_out(name, args)
            return operation.run() if result is None else result
        if name not in _RULED or kwargs.get("out") is not None:
            return operation.run()
        number = 1 if name in _UNARY else 2
        for position, key in enumerate(("input", "other")[:number]):
            if key in kwargs and position == len(args):
                args = (*args, kwargs[key])
                kwargs = {k: v for k, v in kwargs.items() if k != key}
        operands, rest = list(args[:number]), args[number:]
        fits = len(operands) == number and all(_is_real(t) for t in operands)
        if not fits or any(isinstance(t, Tensor) for t in rest):
            return operation.run()
        return self._rule(
            name, operands, _Call(func, _not_in_place(name, rest), kwargs)
        )


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


# Where torch.nn.functional takes ``inplace`` as a position.
_IN_PLACE_AT = {
    "relu": 0,
    "relu6": 0,
    "silu": 0,
    "mish": 0,
    "hardswish": 0,
    "hardsigmoid": 0,
    "selu": 0,
    "elu": 1,
    "celu": 1,
    "leaky_relu": 1,
    "hardtanh": 2,
}


def _not_in_place(name: str, rest: tuple[Any, ...]) -> tuple[Any, ...]:
    at = _IN_PLACE_AT.get(name, len(rest))
    return (*rest[:at], *rest[at + 1 :])


def _layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    wide = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    centered = wide - wide.mean(dim=dims, keepdim=True)
    return _scaled(centered, dims, weight, bias, eps).to(input.dtype)


def _rms_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    wide = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    return _scaled(wide, dims, weight, None, eps).to(input.dtype)


def _scaled(
    x: Tensor,
    dims: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    y = x * (x.pow(2).mean(dim=dims, keepdim=True) + eps).rsqrt()
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


_NORMS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
}


def _slope(x1: Tensor, x0: Tensor, y1: Tensor, y0: Tensor, call: _Call) -> Tensor:
    """``(y1 - y0) / (x1 - x0)``; where they are so close that the difference has lost
    its digits, the derivative halfway."""
    eps = torch.finfo(x1.dtype).eps
    near = eps ** (1 / 3)  # where both ways are about as exact
    change, rise = x1 - x0, y1 - y0
    size = torch.maximum(x1.abs(), x0.abs())
    lost = rise.abs() <= eps ** (2 / 3) * torch.maximum(y1.abs(), y0.abs())
    close = (change.abs() <= near * size) | ((change.abs() <= near) & lost)
    with torch.enable_grad():
        halfway = ((x1 + x0) / 2).detach().requires_grad_()
        (derivative,) = torch.autograd.grad(call(halfway).sum(), halfway)
    return torch.where(close, derivative, rise / change.masked_fill(close, 1))


def _of_quotient(operands: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """A product with the reciprocal, whose slope is known."""
    (a1, b1), (a0, b0) = operands, others
    return [(1 / b1 + 1 / b0) / 2, -(a1 + a0) / (2 * b1 * b0)]
