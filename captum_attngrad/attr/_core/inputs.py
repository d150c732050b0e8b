"""Inputs of attributions: how many examples they hold, and how they are repeated."""

from __future__ import annotations

from torch import Tensor, cat

from captum_attngrad._captum import (
    TargetType,
    formatted_arguments,
    formatted_inputs,
    repeated_arguments,
    repeated_target,
)

Inputs = Tensor | tuple[Tensor, ...]


def number_of_examples(inputs: Inputs) -> int:
    return len(formatted_inputs(inputs)[0])


def repeated(
    inputs: Inputs,
    target: TargetType,
    additional_forward_args: object | None,
    times: int,
) -> tuple[Inputs, TargetType, object | None]:
    """The batch ``times`` times, one copy of all examples after the other."""
    arguments = formatted_arguments(additional_forward_args)
    if times == 1:
        return inputs, target, arguments
    return (
        tuple(cat([each] * times) for each in formatted_inputs(inputs)),
        repeated_target(target, times),
        repeated_arguments(arguments, times),
    )


def like_inputs(attributions: Tensor, inputs: Inputs) -> Tensor | tuple[Tensor]:
    """A tuple if the inputs are a tuple, as Captum's metrics expect."""
    return (attributions,) if isinstance(inputs, tuple) else attributions
