"""Bootstrap intervals against what is known of means."""

import numpy as np
import pytest

from captum_attngrad.evaluation.results.bootstrap import (
    N_RESAMPLES,
    mean_interval,
    not_beaten,
    ranks,
)


def test_interval_of_a_constant_is_a_point() -> None:
    interval = mean_interval(np.full(20, 0.25))
    assert interval == pytest.approx((0.25, 0.25, 0.25))


def test_interval_is_close_to_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    interval = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        low, high = mean_interval(generator.exponential(1.0, size=60))[1:]
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_pairs_tell_apart_what_intervals_alone_do_not() -> None:
    generator = np.random.default_rng(3)
    easy = generator.normal(0, 1, size=100)
    values = np.stack([easy, easy + 0.05, easy + generator.normal(0.05, 0.5, 100)])
    # The shift of 0.05 is far inside each interval, but the same for every example.
    assert not_beaten(values, higher_is_better=True)[:2] == [False, True]
    assert not_beaten(values[:2], higher_is_better=False) == [True, False]


def test_equal_methods_are_all_the_best() -> None:
    values = np.tile(np.linspace(0, 1, 30), (3, 1))
    assert not_beaten(values, higher_is_better=True) == [True, True, True]


@pytest.mark.parametrize("n", [8, 60])
def test_intervals_are_scipys_percentile_intervals(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(4)
    first, second = generator.exponential(1.0, size=(2, n))
    for values in (first, first - second):
        found = mean_interval(values)
        expected = stats.bootstrap(
            (values,),
            np.mean,
            n_resamples=N_RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval
        # The ends are quantiles of 5,000 draws: three standard errors.
        error = 0.16 * values.std() / np.sqrt(n)
        assert found.low == pytest.approx(expected.low, abs=error)
        assert found.high == pytest.approx(expected.high, abs=error)


def test_ranks_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(6).integers(0, 5, size=(9, 20)).astype(float)
    expected = stats.rankdata(values, axis=0)
    np.testing.assert_array_equal(ranks(values, higher_is_better=False), expected)
    np.testing.assert_array_equal(ranks(-values, higher_is_better=True), expected)
