"""Points on the path from no attention to full attention, and the batches they make."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from captum._utils.common import (
    _expand_additional_forward_args,
    _expand_target,
    _format_additional_forward_args,
    _format_inputs,
)
from captum._utils.typing import BaselineType, TargetType
from captum.attr._utils.approximation_methods import (
    SUPPORTED_METHODS,
    approximation_parameters,
)
from captum.attr._utils.common import _format_input_baseline
from torch import Tensor

from captum_attngrad.attr._base import Inputs
from captum_attngrad.attr._whole import whole_number
from captum_attngrad.capture.recorder import AttentionRecord


class Point(NamedTuple):
    """A point on a path from no attention to full attention."""

    factor: float
    weight: float  # in the sum that approximates the integral
    place: int | None  # of the one call that is scaled; None: all of them


def both_ends(
    inputs: Inputs, baselines: BaselineType
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and baselines, as tensors of one shape."""
    formatted, starts = _format_input_baseline(_format_inputs(inputs), baselines)
    return formatted, tuple(
        start if isinstance(start, Tensor) else torch.full_like(of, start)
        for start, of in zip(starts, formatted, strict=True)
    )


def path_points(n_steps: int, method: str, places: list[int] | None) -> list[Point]:
    """The points of the paths on which each of these calls is scaled by itself; None:
    all calls at once."""
    step_sizes, alphas = approximation_parameters(method)
    steps = list(zip(alphas(n_steps), step_sizes(n_steps), strict=True))
    scaled = [None] if places is None else places
    return [Point(*step, place) for place in scaled for step in steps]


def repeated(
    inputs: Inputs,
    target: TargetType,
    additional_forward_args: object | None,
    times: int,
) -> tuple[Inputs, TargetType, object | None]:
    """The examples once for each point, all examples of a point together."""
    arguments = _format_additional_forward_args(additional_forward_args)
    if times == 1:
        return inputs, target, arguments
    return (
        tuple(torch.cat([each] * times) for each in _format_inputs(inputs)),
        _expand_target(target, times),
        _expand_additional_forward_args(arguments, times),
    )


def scaled_with(
    chunk: list[Point], places: list[int], examples: int
) -> dict[int, Tensor]:
    """What the weights of each call are multiplied with."""
    return {
        place: _by_example(
            [p.factor if p.place in (None, place) else 1.0 for p in chunk], examples
        )
        for place in places
    }


def weighted_with(
    chunk: list[Point], places: list[int], examples: int
) -> dict[int, Tensor]:
    """What the scores of each call count."""
    return {
        place: _by_example(
            [p.weight if p.place in (None, place) else 0.0 for p in chunk], examples
        )
        for place in places
    }


def _by_example(numbers: list[float], examples: int) -> Tensor:
    # One number serves all examples, also those of a replica that sees only some.
    each = torch.tensor(numbers, dtype=torch.float64)
    return each if len(numbers) == 1 else each.repeat_interleave(examples)


def in_chunks(
    points: list[Point],
    examples: int,
    internal_batch_size: int | None,
    replicas: bool,
) -> list[list[Point]]:
    if internal_batch_size is None:
        size = len(points)
    else:
        if internal_batch_size < examples:
            warnings.warn(
                f"internal_batch_size={internal_batch_size} is less than the number of "
                f"examples: {examples} rows go through the model at once.",
                stacklevel=4,
            )
        size = max(1, internal_batch_size // max(1, examples))
    if replicas:
        size = 1  # each sees only some of the examples, and cannot tell which
    return [points[i : i + size] for i in range(0, len(points), size)]


def check_steps(n_steps: int, method: str) -> None:
    if method not in SUPPORTED_METHODS:
        raise ValueError(
            f"method={method!r} is unknown: it is one of "
            f"{', '.join(SUPPORTED_METHODS)}."
        )
    whole_number(
        "n_steps", n_steps, 1 if method == "gausslegendre" else 2, f"for {method}"
    )


def check_same_calls(record: AttentionRecord, places: list[int]) -> None:
    for calls in record.parts:
        if [call.place for call in calls] != places:
            raise RuntimeError(
                "The model made other attention calls when its attention was scaled "
                f"({len(calls)} in place of {len(places)}, or in another order), so "
                "that the steps do not belong together. Which attention calls it makes "
                "must not depend on its weights, nor on the size of the batch."
            )
