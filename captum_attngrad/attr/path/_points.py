"""Points on the path from no attention to full attention, and the batches they make."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from captum._utils.common import _format_inputs
from captum._utils.typing import BaselineType
from captum.attr._utils.approximation_methods import (
    SUPPORTED_METHODS,
    approximation_parameters,
)
from torch import Tensor

from captum_attngrad.attr._core.base import Inputs
from captum_attngrad.attr._core.whole_numbers import whole_number
from captum_attngrad.capture._interventions import Scale
from captum_attngrad.capture._layout import ExampleDimension
from captum_attngrad.capture.recorder import AttentionRecord


class Point(NamedTuple):
    """A point on a path from no attention to full attention."""

    factor: float
    weight: float  # in the sum that approximates the integral
    place: int | None  # of the one call that is scaled; None: all of them


def both_ends(
    inputs: Inputs, baselines: BaselineType
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and baselines, as tensors of one shape.

    Raises:
        ValueError: if a baseline does not fit its input.
    """
    formatted = _format_inputs(inputs)
    if baselines is None:
        return formatted, tuple(torch.zeros_like(of) for of in formatted)
    starts = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(starts) != len(formatted):
        raise ValueError(
            f"There are {len(starts)} baselines for {len(formatted)} inputs: pass one "
            "for each tensor in inputs, as a tuple (or None, for zeros)."
        )
    return formatted, tuple(map(_baseline, starts, formatted))


def _baseline(start: Any, of: Tensor) -> Tensor:
    """A number, a tensor of the same shape, or one example that serves them all."""
    whole = not (of.is_floating_point() or of.is_complex())
    if isinstance(start, Tensor):
        if start.shape not in (of.shape, (1, *of.shape[1:])):
            raise ValueError(
                f"baselines have shape {tuple(start.shape)}, and the inputs have shape "
                f"{tuple(of.shape)}: expected the same shape, or one example that "
                f"serves all, {(1, *of.shape[1:])}."
            )
        if whole and (start.is_floating_point() or start.is_complex()):
            raise ValueError(
                f"baselines are {start.dtype}, and the inputs are {of.dtype}: expected "
                "whole numbers, such as token ids."
            )
        return start.to(of.dtype).expand_as(of).contiguous()
    if isinstance(start, bool) or not isinstance(start, (int, float)):
        raise ValueError(
            f"baselines={start!r:.80} ({type(start).__name__}): expected None, a "
            "number, a tensor, or a tuple of these."
        )
    if whole and not float(start).is_integer():
        raise ValueError(
            f"baselines={start!r}, and the inputs are {of.dtype}: expected a whole "
            "number, such as a token id."
        )
    return torch.full_like(of, start)


def sums_of_examples(attributions: Any, examples: int) -> Tensor:
    """The sum of the scores of each example, ``(batch,)``."""
    if isinstance(attributions, tuple) and len(attributions) == 1:
        (attributions,) = attributions
    if not isinstance(attributions, Tensor) or attributions.shape[:1] != (examples,):
        given = (
            f"shape {tuple(attributions.shape)}"
            if isinstance(attributions, Tensor)
            else type(attributions).__name__
        )
        raise ValueError(
            "attributions must be what attribute returned for these inputs, "
            f"({examples}, keys), got {given}."
        )
    return attributions.flatten(1).sum(dim=1)


def path_points(n_steps: int, method: str, places: list[int] | None) -> list[Point]:
    """The points of the paths on which each of these calls is scaled by itself; None:
    all calls at once."""
    step_sizes, alphas = approximation_parameters(method)
    steps = list(zip(alphas(n_steps), step_sizes(n_steps), strict=True))
    scaled = [None] if places is None else places
    return [Point(*step, place) for place in scaled for step in steps]


def scaled_with(
    chunk: list[Point],
    places: list[int],
    examples: int,
    where: Mapping[int, ExampleDimension] | None = None,
) -> Scale:
    """What the weights of each call are multiplied with."""
    factors = {
        place: _by_example(
            [p.factor if p.place in (None, place) else 1.0 for p in chunk], examples
        )
        for place in places
    }
    return Scale(factors, where or {})


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
    # Autograd keeps them, which it refuses to do with tensors of inference_mode.
    with torch.inference_mode(False):
        each = torch.tensor(numbers, dtype=torch.float64)
        # One number serves all examples, also those of a replica that sees only some.
        return each if len(numbers) == 1 else each.repeat_interleave(examples)


def in_chunks(
    points: list[Point],
    examples: int,
    internal_batch_size: int | None,
    one_by_one: bool,
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
    if one_by_one:
        size = 1  # as for replicas, which see some of the examples, not which
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
