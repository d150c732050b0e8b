r"""Comprehensiveness and sufficiency (DeYoung et al. 2020)."""

from collections.abc import Sequence

from torch import Tensor

from captum_attngrad.metrics.faithfulness.base import ErasureMetric
from captum_attngrad.metrics.functional.faithfulness import mean_drop
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.metrics.functional.masks import (
    DEFAULT_BINS,
    all_but_top_token_masks,
    check_fractions,
    top_token_masks,
)


class _MeanDrop(ErasureMetric):
    """Mean drop of p over fractions of the attributable tokens."""

    value_range = (-1.0, 1.0)
    paper = (
        "DeYoung et al. 2020, ERASER: A Benchmark to Evaluate Rationalized NLP Models"
    )

    def __init__(self, bins: Sequence[float] = DEFAULT_BINS) -> None:
        self.bins = check_fractions(bins)

    def value(
        self, full: Answers, masked: Answers, scores: Tensor, attributable: Tensor
    ) -> Tensor:
        return mean_drop(full.p, masked.p)


class Comprehensiveness(_MeanDrop):
    r"""
    Drop of the explained class's probability when the top-scored tokens are masked.

    See :func:`~captum_attngrad.metrics.functional.comprehensiveness`. Higher is better.
    A value below 0 says that the class became *more* probable.
    """

    name = "comprehensiveness"
    higher_is_better = True
    best_value = 1.0
    description = (
        "drop of the explained class's probability when the top-scored tokens are "
        "masked, mean over the bins"
    )

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        return top_token_masks(attributions, attributable, self.bins)


class Sufficiency(_MeanDrop):
    r"""
    Drop of the explained class's probability when all but the top-scored tokens are
    masked.

    See :func:`~captum_attngrad.metrics.functional.sufficiency`. Lower is better: at 0
    the top tokens alone convince the model as much as the whole text, and below 0 they
    convince it more.
    """

    name = "sufficiency"
    higher_is_better = False
    best_value = -1.0
    description = (
        "drop of the explained class's probability when all but the top-scored tokens "
        "are masked, mean over the bins"
    )

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        return all_but_top_token_masks(attributions, attributable, self.bins)
