r"""The data of a comparison, with means, intervals and ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attngrad.evaluation.results.bootstrap import (
    MAX_ROUNDING,
    MIN_PAIRS,
    Interval,
    interval_of,
    mean_of,
    not_beaten,
    ranks,
    resampled_means,
)
from captum_attngrad.evaluation.results.info import MethodInfo, MetricInfo
from captum_attngrad.evaluation.results.texts import ExplainedText

#: Fractions of the tokens at which the masking curves are taken.
CURVE = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)

# As many as metrics of all texts together have, so that the ranks of one draw can be
# averaged over all metrics.
_N_RANK_RESAMPLES = 100

_NO_INTERVAL = Interval(float("nan"), float("nan"), float("nan"))

_Array = npt.NDArray[np.float64]


class _AverageRanks(NamedTuple):
    """Of the finished methods: average ranks (methods,), those of paired resamples
    (methods, resamples), and the methods' rows in the comparison."""

    means: _Array
    resamples: _Array
    rows: list[int]


@dataclass(frozen=True)
class Results:
    """The numbers of a comparison; see
    :class:`~captum_attngrad.evaluation.Comparison`."""

    methods: tuple[MethodInfo, ...]
    metrics: tuple[MetricInfo, ...]
    values: _Array
    seconds: _Array
    texts: Sequence[ExplainedText]
    class_names: tuple[str, ...]
    settings: Mapping[str, str]
    seed: int
    replicates: Mapping[str, _Array]
    curves: npt.NDArray[np.float32]
    failures: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[tuple[str, str], str] = field(default_factory=dict)
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    @property
    def properties(self) -> tuple[str, ...]:
        """The measured properties, in the order of the metrics."""
        return tuple(dict.fromkeys(metric.property for metric in self.metrics))

    @property
    def ranked_properties(self) -> tuple[str, ...]:
        """The properties with several metrics, over which ranks are averaged. Cost is
        left out: it does not make an explanation good."""
        names = [metric.property for metric in self.metrics]
        return tuple(p for p in self.properties if names.count(p) > 1 and p != "cost")

    @property
    def finished(self) -> tuple[MethodInfo, ...]:
        """The methods that did not fail."""
        return tuple(m for m in self.methods if m.name not in self.failures)

    def _row(self, method: str) -> int:
        return _position("method", method, [m.name for m in self.methods])

    def _column(self, metric: str) -> int:
        return _position("metric", metric, [m.name for m in self.metrics])

    def means(self, metric: str) -> _Array:
        """The metric of each method, (methods,)."""
        column = self._column(metric)
        if metric in self.replicates:
            return self.replicates[metric][:, 0]
        return mean_of(self.values[:, column])

    def resampled(self, metric: str) -> _Array:
        """Paired resamples of the metric of each method, (methods, resamples)."""
        column = self._column(metric)
        if metric in self.replicates:
            return self.replicates[metric][:, 1:]
        return resampled_means(self.values[:, column], self.seed)

    def interval(self, method: str, metric: str) -> Interval:
        r"""
        Mean over the texts with its 95% bootstrap interval.

        Args:
            method (str): Name of a method.
            metric (str): Name of a metric.

        Returns:
            *Interval*: NaN throughout if there is no value.

        Raises:
            KeyError: If one of the names is not in this comparison.
        """
        row, column = self._row(method), self._column(metric)
        if metric in self.replicates:
            found = self.replicates[metric][row]
            return interval_of(float(found[0]), found[1:])
        values = self.values[row, column]
        return interval_of(float(mean_of(values)), resampled_means(values, self.seed))

    def n_values(self, method: str, metric: str) -> int:
        """The number of texts for which the metric has a value."""
        row, column = self._row(method), self._column(metric)
        if metric in self.replicates:
            measured = np.isfinite(self.replicates[metric][row, 0])
            return len(self.texts) if measured else 0
        return int(np.isfinite(self.values[row, column]).sum())

    def difference(self, method: str, other: str, metric: str) -> Interval:
        r"""
        Mean difference between two methods with its 95% paired bootstrap interval.

        Args:
            method (str): Name of a method.
            other (str): Name of the method whose value is subtracted.
            metric (str): Name of a metric.

        Returns:
            *Interval*: Over the texts for which both have a value.

        Raises:
            KeyError: If one of the names is not in this comparison.
        """
        rows, column = [self._row(method), self._row(other)], self._column(metric)
        if metric in self.replicates:
            first, second = self.replicates[metric][rows]
            return interval_of(float(first[0] - second[0]), (first - second)[1:])
        first, second = self.values[rows, column]
        return interval_of(
            float(mean_of(first - second)), resampled_means(first - second, self.seed)
        )

    def beats(self, method: str, other: str, metric: str) -> bool:
        r"""
        Whether a method is significantly better than another: the 95% paired bootstrap
        interval of their difference excludes 0, over at least six texts.

        Args:
            method (str): Name of a method.
            other (str): Name of another method.
            metric (str): Name of a metric.

        Returns:
            *bool*: Not corrected for the number of comparisons.
        """
        interval = self.difference(method, other, metric)
        column = self._column(metric)
        if metric in self.replicates:
            n = min(self.n_values(method, metric), self.n_values(other, metric))
        else:
            pair = self.values[[self._row(method), self._row(other)], column]
            n = int(np.isfinite(pair).all(axis=0).sum())
        if n < MIN_PAIRS:
            return False
        if self.metrics[column].higher_is_better:
            return interval.low > MAX_ROUNDING
        return interval.high < -MAX_ROUNDING

    def not_beaten(self, metric: str) -> list[bool]:
        r"""
        For each method, whether it is the best at a metric or not significantly worse
        than the best (paired bootstrap, 95%).

        Args:
            metric (str): Name of a metric.

        Returns:
            *list of bool*: In the order of ``methods``; False without a value.
        """
        column = self._column(metric)
        higher = self.metrics[column].higher_is_better
        if metric not in self.replicates:
            return not_beaten(self.values[:, column], higher, self.seed)
        means = self.means(metric)
        if not np.isfinite(means).any():
            return [False] * len(means)
        best = self.methods[int(np.nanargmax(means if higher else -means))].name
        return [
            bool(np.isfinite(mean)) and not self.beats(best, method.name, metric)
            for method, mean in zip(self.methods, means, strict=True)
        ]

    def _average_ranks(self, property: str) -> _AverageRanks | None:
        """None if no method has a value."""
        _position("property", property, list(self.properties))
        rows = [self._row(method.name) for method in self.finished]
        of_means, of_resamples = [], []
        for metric in self.metrics:
            means = self.means(metric.name)
            if metric.property != property or not np.isfinite(means).any():
                continue
            better = metric.higher_is_better
            of_means.append(ranks(means[rows], better))
            resampled = self.resampled(metric.name)[rows, :_N_RANK_RESAMPLES]
            of_resamples.append(ranks(resampled, better))
        if not of_means:
            return None
        return _AverageRanks(
            np.mean(of_means, axis=0), np.mean(of_resamples, axis=0), rows
        )

    def average_rank(self, method: str, property: str) -> Interval:
        r"""
        Mean rank of a method over the metrics of a property, 1 for the best, with its
        95% bootstrap interval. Methods that failed are not ranked; a method without a
        value for a metric shares the last rank there.

        Args:
            method (str): Name of a method.
            property (str): Name of a property.

        Returns:
            *Interval*: NaN throughout for a method that failed.

        Raises:
            KeyError: If one of the names is not in this comparison.
        """
        row, found = self._row(method), self._average_ranks(property)
        if method in self.failures or found is None:
            return _NO_INTERVAL
        index = found.rows.index(row)
        return interval_of(float(found.means[index]), found.resamples[index])

    def best_ranked(self, property: str) -> list[bool]:
        r"""
        For each method, whether its average rank is the best of a property or not
        significantly worse than the best (paired bootstrap, 95%).

        Args:
            property (str): Name of a property.

        Returns:
            *list of bool*: In the order of ``methods``; False for one that failed.

        Raises:
            KeyError: If the property is not in this comparison.
        """
        marks = [False] * len(self.methods)
        found = self._average_ranks(property)
        if found is None:
            return marks
        behind = found.resamples - found.resamples[int(found.means.argmin())]
        few = len(self.texts) < MIN_PAIRS
        for row, of_row in zip(found.rows, behind, strict=True):
            marks[row] = few or interval_of(0.0, of_row).low <= 0
        return marks

    def scores(self, method: str, example: int) -> _Array:
        r"""
        The scores of a text's tokens.

        Args:
            method (str): Name of a method.
            example (int): Position of the text, from 0.

        Returns:
            *ndarray*: Shape (tokens,), for ``texts[example].tokens``.

        Raises:
            KeyError: If the method is not in this comparison, or failed.
            IndexError: If there is no such text.

        Examples::

            >>> result.scores("attention_gradient", 0)
        """
        self._row(method)
        if method in self.failures:
            raise KeyError(f"The method {method!r} failed: {self.failures[method]}")
        if not 0 <= example < len(self.texts):
            raise IndexError(
                f"There is no text {example}; expected 0 to {len(self.texts) - 1}."
            )
        return self.texts[example].scores[method]

    def to_frame(self, intervals: bool = False) -> Any:
        r"""
        The comparison as a tidy table. It needs pandas.

        Args:
            intervals (bool): Whether the rows are means with intervals instead of the
                values of single texts.
                Default: False

        Returns:
            *pandas.DataFrame*: One row for each text, method and metric, with the
            columns ``example``, ``method``, ``metric``, ``property``, ``value``.
            Metrics without values of single texts have one row for each method, with
            ``example`` -1. With ``intervals``, one row for each method and metric, with
            the columns ``method``, ``metric``, ``property``, ``value``, ``low``,
            ``high``, for ``to_latex`` and ``to_csv``. Missing values are NaN.

        Raises:
            ImportError: If pandas is not installed.

        Examples::

            >>> result.to_frame().groupby(["method", "metric"])["value"].median()
            >>> result.to_frame(intervals=True).to_csv("results.csv", index=False)
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas, which is not installed. Run: "
                "pip install 'captum-attngrad[compare]'"
            ) from error
        frames = []
        for j, metric in enumerate(self.metrics):
            for i, method in enumerate(self.methods):
                about = {
                    "method": method.name,
                    "metric": metric.name,
                    "property": metric.property,
                }
                if intervals:
                    value, low, high = self.interval(method.name, metric.name)
                    columns = {**about, "value": [value], "low": low, "high": high}
                elif metric.name in self.replicates:
                    value = self.means(metric.name)[i]
                    columns = {"example": [-1], **about, "value": value}
                else:
                    values = self.values[i, j]
                    example = np.arange(len(values))
                    columns = {"example": example, **about, "value": values}
                frames.append(pandas.DataFrame(columns))
        return pandas.concat(frames, ignore_index=True)


def _position(kind: str, name: str, names: list[str]) -> int:
    if name not in names:
        raise KeyError(
            f"This comparison has no {kind} {name!r}; expected one of: "
            f"{', '.join(names)}."
        )
    return names.index(name)
