r"""Copies of models, and the constants that are put into them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class NotApplicableError(ValueError):
    """A change cannot be expressed with the parameters that a model has."""


def copied(model: nn.Module) -> nn.Module:
    """A copy with parameters of its own."""
    with torch.no_grad():
        return copy.deepcopy(model)


def normal(like: Tensor, generator: torch.Generator, scale: float) -> Tensor:
    """Normal numbers; drawn on the CPU, so that they are the same everywhere."""
    return (torch.randn(like.shape, generator=generator) * scale).to(like)
