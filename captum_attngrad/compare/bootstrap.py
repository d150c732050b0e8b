r"""Intervals of means by resampling the examples (Efron 1979)."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

N_RESAMPLES = 5_000

_Array = npt.NDArray[np.float64]


class Interval(NamedTuple):
    r"""
    A mean and its 95% bootstrap interval.

    Args:
        mean (float): Mean over the examples.
        low (float): 2.5th percentile of the resampled means.
        high (float): 97.5th percentile of the resampled means.
    """

    mean: float
    low: float
    high: float


@lru_cache(maxsize=4)
def _draws(n: int, seed: int) -> _Array:
    """How often each of n examples is drawn, as a share: (examples, resamples)."""
    generator = np.random.default_rng(seed)
    shares: _Array = generator.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES).T / n
    return shares


def resampled_means(values: _Array, seed: int) -> _Array:
    r"""
    Means of examples drawn with replacement. The draws depend only on the number of
    examples and the seed, so two methods resampled with one seed are paired.

    Args:
        values (ndarray): Shape (..., examples).
        seed (int): Seed of the draws.

    Returns:
        *ndarray*: Shape (..., resamples).
    """
    means: _Array = values @ _draws(values.shape[-1], seed)
    return means


def mean_interval(values: _Array, seed: int = 0) -> Interval:
    r"""
    Mean of some values with its 95% percentile bootstrap interval.

    Args:
        values (ndarray): One value for each example.
        seed (int): Seed of the draws.
            Default: 0

    Returns:
        *Interval*

    Examples::

        >>> mean_interval(np.array([0.0, 1.0, 1.0, 0.0]))
    """
    low, high = np.percentile(resampled_means(values, seed), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))


def not_beaten(values: _Array, higher_is_better: bool, seed: int = 0) -> list[bool]:
    r"""
    Which rows are the best, or cannot be told from the best.

    Args:
        values (ndarray): Shape (methods, examples), the same examples for each method.
        higher_is_better (bool): Direction.
        seed (int): Seed of the draws.
            Default: 0

    Returns:
        *list of bool*: True for the method with the best mean and for those whose
        paired difference to it has a 95% bootstrap interval that holds 0. The intervals
        are not corrected for the number of comparisons.
    """
    signed = values if higher_is_better else -values
    best = int(signed.mean(axis=1).argmax())
    low = np.percentile(resampled_means(signed[best] - signed, seed), 2.5, axis=1)
    return [bool(edge <= 0) for edge in low]
