r"""Measures of how good an explanation is."""

from captum_attngrad.metrics.base import DEFAULT_BINS, ErasureMetric, Metric
from captum_attngrad.metrics.erasure import (
    Comprehensiveness,
    Sufficiency,
    comprehensiveness,
    sufficiency,
)
from captum_attngrad.metrics.removal import (
    n_top_tokens,
    removal_probabilities,
    top_token_masks,
)

__all__ = [
    "DEFAULT_BINS",
    "Comprehensiveness",
    "ErasureMetric",
    "Metric",
    "Sufficiency",
    "comprehensiveness",
    "n_top_tokens",
    "removal_probabilities",
    "sufficiency",
    "top_token_masks",
]
