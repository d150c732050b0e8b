"""From a classifier's logits to probabilities and log-odds of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from captum_attngrad.attr._core.log_odds import log_odds


class Outputs(Protocol):
    r"""
    How logits (batch, classes) are read.

    Attributes:
        exclusive (bool): Whether exactly one class is right, so that the most probable
            one is the model's decision.
    """

    @property
    def exclusive(self) -> bool: ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each class, in float64 where the device has it."""

    def log_odds(self, logits: Tensor) -> Tensor:
        """The log-odds of each class against everything else."""


@dataclass(frozen=True)
class OneClass:
    """One class is right: probabilities are a softmax and sum to 1."""

    exclusive = True

    def probabilities(self, logits: Tensor) -> Tensor:
        return _wide(logits).softmax(dim=-1)

    def log_odds(self, logits: Tensor) -> Tensor:
        return log_odds(logits)


ONE_CLASS = OneClass()


@dataclass(frozen=True)
class AnyLabels:
    """Any number of labels is right (multi-label): each has a sigmoid of its own."""

    exclusive = False

    def probabilities(self, logits: Tensor) -> Tensor:
        return _wide(logits).sigmoid()

    def log_odds(self, logits: Tensor) -> Tensor:
        return logits


def outputs_of(model: Any) -> Outputs:
    """What a Hugging Face model's configuration says about its outputs."""
    kind = getattr(model.config, "problem_type", None)
    n_outputs = model.config.num_labels
    name = type(model).__name__
    if kind == "regression" or (kind is None and n_outputs == 1):
        raise ValueError(
            f"{name} has {n_outputs} output(s) and is a regression model (problem_type "
            f"{kind!r}): its output is a quantity and not the probability of a class, "
            "which TextModel and compare need. Explain it with an attribution class, "
            "such as AttentionGradient, whose forward_func returns the output."
        )
    if kind == "multi_label_classification":
        return AnyLabels()
    if kind not in (None, "single_label_classification"):
        raise ValueError(
            f"{name} has the problem_type {kind!r}; expected "
            "'single_label_classification', 'multi_label_classification' or None."
        )
    if n_outputs < 2:
        raise ValueError(
            f"{name} has {n_outputs} output(s); expected a classifier with two classes "
            "or more."
        )
    return ONE_CLASS


def _wide(logits: Tensor) -> Tensor:
    # In float32 the probability of a confident model rounds to exactly 1, and with it
    # every gradient and difference to 0.
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    return logits.to(dtype)
