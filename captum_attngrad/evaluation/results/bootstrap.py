r"""Intervals, paired differences and ranks by resampling the texts (Efron 1979)."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

N_RESAMPLES = 5_000

# With fewer pairs not even a sign test could reach 5%, and resampled means of so few
# numbers vary too little: then no method beats another.
MIN_PAIRS = 6

# Equal methods differ by rounding.
MAX_ROUNDING = 1e-12

_Array = npt.NDArray[np.float64]


class Interval(NamedTuple):
    r"""
    A mean and its 95% bootstrap interval.

    Args:
        mean (float): Mean over the texts for which there is a value; NaN if there is
            none.
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
        values (ndarray): Shape (..., examples). NaN is left out.
        seed (int): Seed of the draws.

    Returns:
        *ndarray*: Shape (..., resamples); NaN where no value was drawn.
    """
    draws = _draws(values.shape[-1], seed)
    there = np.isfinite(values)
    if there.all():
        means: _Array = values @ draws
        return means
    sums = np.where(there, values, 0.0) @ draws
    shares = there.astype(float) @ draws
    found: _Array = np.divide(
        sums, shares, out=np.full_like(sums, np.nan), where=shares > 0
    )
    return found


def mean_of(values: _Array) -> _Array:
    """Mean over the last axis without NaN; NaN where all values are."""
    there = np.isfinite(values)
    counts = there.sum(axis=-1)
    sums = np.where(there, values, 0.0).sum(axis=-1)
    means: _Array = np.divide(
        sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0
    )
    return means


def interval_of(mean: float, resampled: _Array) -> Interval:
    """The interval that resampled means span around the mean."""
    drawn = resampled[np.isfinite(resampled)]
    if not np.isfinite(mean) or drawn.size == 0:
        return Interval(float(mean), float("nan"), float("nan"))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(mean), float(low), float(high))


def mean_interval(values: _Array, seed: int = 0) -> Interval:
    r"""
    Mean of some values with its 95% percentile bootstrap interval.

    Args:
        values (ndarray): One value for each example; NaN is left out.
        seed (int): Seed of the draws.
            Default: 0

    Returns:
        *Interval*

    Examples::

        >>> mean_interval(np.array([0.0, 1.0, 1.0, 0.0]))
    """
    return interval_of(float(mean_of(values)), resampled_means(values, seed))


def not_beaten(values: _Array, higher_is_better: bool, seed: int = 0) -> list[bool]:
    r"""
    Which rows are the best, or not significantly worse than the best.

    Args:
        values (ndarray): Shape (methods, examples), the same examples for each method.
            NaN where a method has no value.
        higher_is_better (bool): Direction.
        seed (int): Seed of the draws.
            Default: 0

    Returns:
        *list of bool*: True for the method with the best mean and for those whose
        paired difference to it has a 95% bootstrap interval that contains 0, over the
        examples for which both have a value. With fewer than six such examples no
        method beats another. A method without values is False. The intervals are not
        corrected for the number of comparisons.
    """
    signed = values if higher_is_better else -values
    means = mean_of(signed)
    if not np.isfinite(means).any():
        return [False] * len(values)
    differences = signed[int(np.nanargmax(means))] - signed
    low = [
        interval_of(0.0, resampled).low
        for resampled in resampled_means(differences, seed)
    ]
    n_pairs = np.isfinite(differences).sum(axis=1)
    return [
        bool(np.isfinite(mean) and (edge <= MAX_ROUNDING or n < MIN_PAIRS))
        for mean, edge, n in zip(means, low, n_pairs, strict=True)
    ]


def ranks(means: _Array, higher_is_better: bool) -> _Array:
    r"""
    Ranks of methods, 1 for the best; equal ones share the mean of their ranks, and
    those without a value share the last ranks.

    Args:
        means (ndarray): Shape (methods, ...).
        higher_is_better (bool): Direction.

    Returns:
        *ndarray*: Same shape.

    Examples::

        >>> ranks(np.array([0.5, 0.9, 0.5, np.nan]), higher_is_better=True)
        array([2.5, 1. , 2.5, 4. ])
    """
    signed = means if higher_is_better else -means
    # Rounded, so that equal methods are not ranked by rounding errors.
    signed = np.where(np.isfinite(signed), signed.round(6), -np.inf)
    better = (signed[None] > signed[:, None]).sum(axis=1)
    equal = (signed[None] == signed[:, None]).sum(axis=1)
    found: _Array = 1 + better + (equal - 1) / 2
    return found
