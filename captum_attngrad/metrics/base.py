r"""What every measure of an explanation declares about itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_attngrad.metrics.removal import (
    DEFAULT_TOKENS_PER_BATCH,
    Target,
    check_fractions,
    removal_probabilities,
)

#: Fractions of the tokens over which the erasure metrics are averaged by default.
DEFAULT_BINS = (0.05, 0.1, 0.2, 0.5)


class Metric(ABC):
    r"""
    A measure of explanations: what it is called and how its values are to be read.

    Attributes:
        name (str): Short name, unique, as used in tables and on the command line.
        property (str): Which property of an explanation is measured.
        higher_is_better (bool): Direction.
        value_range (tuple[float, float]): Lowest and highest possible value.
        best_value (float): The end of the range that a perfect explanation tends to.
        paper (str): Where the measure comes from.
        description (str): What is measured, in one line.
    """

    name: ClassVar[str]
    property: ClassVar[str]
    higher_is_better: ClassVar[bool]
    value_range: ClassVar[tuple[float, float]]
    best_value: ClassVar[float]
    paper: ClassVar[str]
    description: ClassVar[str]


class ErasureMetric(Metric):
    r"""
    A metric that removes tokens in the order of their scores and watches the
    probability of the explained class.

    It is split in two so that a harness can collect the variants that many metrics and
    methods ask for, run each distinct variant once, and then hand out the results:
    :meth:`removed` says which variants are needed, :meth:`value` turns their
    probabilities into the metric. Calling the instance does all of it.

    Args:
        bins (Sequence of float): Fractions of the attributable tokens; the value is
            the mean over them.
            Default: (0.05, 0.1, 0.2, 0.5)
    """

    property = "faithfulness"
    paper = (
        "DeYoung et al. 2020, ERASER: A Benchmark to Evaluate Rationalized NLP Models"
    )

    def __init__(self, bins: Sequence[float] = DEFAULT_BINS) -> None:
        self.bins = check_fractions(bins)

    @abstractmethod
    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        """Tokens to replace: boolean (batch, variants, tokens)."""

    @abstractmethod
    def value(self, p_full: Tensor, p_removed: Tensor) -> Tensor:
        """The metric (batch,) from p (batch,) and p of the variants (batch, variants).

        ``p_removed`` is in the order of :meth:`removed`.
        """

    def __call__(
        self,
        forward_func: Callable[..., Tensor],
        inputs: Tensor,
        attributions: Tensor,
        target: Target,
        replacement: int,
        attributable: Tensor | None = None,
        additional_forward_args: Any = None,
        max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    ) -> Tensor:
        """The metric, shape (batch,); the arguments are those of the function of the
        same name."""
        if attributions.shape != inputs.shape:
            raise ValueError(
                f"attributions has shape {tuple(attributions.shape)} and inputs has "
                f"shape {tuple(inputs.shape)}; expected one score for each token."
            )
        if attributable is None:
            attributable = torch.ones_like(inputs, dtype=torch.bool)
        removed = self.removed(attributions, attributable)
        nothing = torch.zeros_like(removed[:, :1])
        p = removal_probabilities(
            forward_func,
            inputs,
            torch.cat([nothing, removed], dim=1),
            target,
            replacement,
            additional_forward_args,
            max_tokens_per_batch,
        )
        return self.value(p[:, 0], p[:, 1:])
