"""Inputs and their baselines, and whether scores add up between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_attngrad._captum import BaselineType, formatted_inputs
from captum_attngrad.attr._core.inputs import Inputs


def inputs_and_baselines(
    inputs: Inputs, baselines: BaselineType
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and baselines, as tensors of the same shapes.

    Raises:
        ValueError: if a baseline does not fit its input.
    """
    formatted = formatted_inputs(inputs)
    if baselines is None:
        return formatted, tuple(map(torch.zeros_like, formatted))
    given = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(given) != len(formatted):
        raise ValueError(
            f"There are {len(given)} baselines for {len(formatted)} inputs: pass one "
            "for each tensor in inputs, as a tuple (or None, for zeros)."
        )
    return formatted, tuple(map(_baseline, given, formatted))


def _baseline(given: Any, of: Tensor) -> Tensor:
    """A number, a tensor of the same shape, or one example that serves them all."""
    is_integer = not (of.is_floating_point() or of.is_complex())
    if isinstance(given, Tensor):
        if given.shape not in (of.shape, (1, *of.shape[1:])):
            raise ValueError(
                f"baselines have shape {tuple(given.shape)}, and the inputs have shape "
                f"{tuple(of.shape)}: expected the same shape, or one example that "
                f"serves all, {(1, *of.shape[1:])}."
            )
        if is_integer and (given.is_floating_point() or given.is_complex()):
            raise ValueError(
                f"baselines are {given.dtype}, and the inputs are {of.dtype}: expected "
                "whole numbers, such as token ids."
            )
        return given.to(of.dtype).expand_as(of).contiguous()
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise ValueError(
            f"baselines={given!r:.80} ({type(given).__name__}): expected None, a "
            "number, a tensor, or a tuple of these."
        )
    if is_integer and not float(given).is_integer():
        raise ValueError(
            f"baselines={given!r}, and the inputs are {of.dtype}: expected a whole "
            "number, such as a token id."
        )
    return torch.full_like(of, given)


def sums_of_examples(attributions: Any, examples: int) -> Tensor:
    """The sum of the scores of each example, ``(batch,)``.

    Raises:
        ValueError: if they are not the scores of so many examples.
    """
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
