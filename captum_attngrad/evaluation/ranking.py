r"""The values of a comparison as ranks, and as a tidy table."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attngrad._extras import require
from captum_attngrad.evaluation.bootstrap import (
    FEWEST_PAIRS,
    Interval,
    interval_of,
    not_beaten,
    ranks,
)
from captum_attngrad.evaluation.info import MetricInfo

if TYPE_CHECKING:
    from captum_attngrad.evaluation.comparison import Comparison

# As many as there are of metrics that look at all texts together, so that ranks of one
# draw can be averaged.
_N_RESAMPLES = 100

_Array = npt.NDArray[np.float64]


def not_beaten_at(comparison: "Comparison", metric: MetricInfo) -> list[bool]:
    """See :meth:`Comparison.not_beaten`."""
    if metric.name not in comparison.replicates:
        values = comparison.values[:, comparison.metrics.index(metric)]
        return not_beaten(values, metric.higher_is_better, comparison.seed)
    means = comparison.means(metric.name)
    if not np.isfinite(means).any():
        return [False] * len(means)
    best = int(np.nanargmax(means if metric.higher_is_better else -means))
    names = [method.name for method in comparison.methods]
    return [
        bool(np.isfinite(mean)) and not comparison.beats(names[best], name, metric.name)
        for name, mean in zip(names, means, strict=True)
    ]


class _AverageRanks(NamedTuple):
    """Of the finished methods: average ranks (methods,), those of paired resamples
    (methods, resamples), and where the methods stand in the comparison."""

    means: _Array
    resamples: _Array
    rows: list[int]


def _average_ranks(comparison: "Comparison", property: str) -> _AverageRanks | None:
    """None if no method has a value."""
    rows = [
        i
        for i, method in enumerate(comparison.methods)
        if method.name not in comparison.failures
    ]
    of_means, of_resamples = [], []
    for metric in comparison.metrics:
        means = comparison.means(metric.name)
        if metric.property != property or not np.isfinite(means).any():
            continue
        better = metric.higher_is_better
        of_means.append(ranks(means[rows], better))
        resampled = comparison.resampled(metric.name)[rows, :_N_RESAMPLES]
        of_resamples.append(ranks(resampled, better))
    if not of_means:
        return None
    return _AverageRanks(np.mean(of_means, axis=0), np.mean(of_resamples, axis=0), rows)


def average_rank(comparison: "Comparison", row: int, property: str) -> Interval:
    """See :meth:`Comparison.average_rank`; ``row`` is that of a finished method."""
    found = _average_ranks(comparison, property)
    if found is None:
        return Interval(float("nan"), float("nan"), float("nan"))
    place = found.rows.index(row)
    return interval_of(float(found.means[place]), found.resamples[place])


def best_ranked(comparison: "Comparison", property: str) -> list[bool]:
    """See :meth:`Comparison.best_ranked`."""
    marks = [False] * len(comparison.methods)
    found = _average_ranks(comparison, property)
    if found is None:
        return marks
    behind = found.resamples - found.resamples[int(found.means.argmin())]
    few = len(comparison.texts) < FEWEST_PAIRS
    for row, of_row in zip(found.rows, behind, strict=True):
        marks[row] = few or interval_of(0.0, of_row).low <= 0
    return marks


def to_frame(comparison: "Comparison") -> Any:
    """See :meth:`Comparison.to_frame`."""
    pandas = require("pandas", "to_frame", "compare")
    frames = []
    for j, metric in enumerate(comparison.metrics):
        single = metric.name not in comparison.replicates
        values = comparison.values[:, j]
        if not single:
            values = comparison.means(metric.name)[:, None]
        for i, method in enumerate(comparison.methods):
            columns = {
                "example": np.arange(values.shape[1]) if single else [-1],
                "method": method.name,
                "metric": metric.name,
                "property": metric.property,
                "value": values[i],
            }
            frames.append(pandas.DataFrame(columns))
    return pandas.concat(frames, ignore_index=True)
