r"""What a comparison found, and how it is shown."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from captum_attngrad.evaluation import files, ranking
from captum_attngrad.evaluation.bootstrap import (
    FEWEST_PAIRS,
    Interval,
    interval_of,
    mean_of,
    resampled_means,
)
from captum_attngrad.evaluation.evaluate import CURVE
from captum_attngrad.evaluation.info import MethodInfo, MetricInfo
from captum_attngrad.evaluation.tables import text_table
from captum_attngrad.evaluation.texts import ExplainedText

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    r"""
    The result of :func:`compare`.

    Args:
        methods (tuple of MethodInfo): What was compared.
        metrics (tuple of MetricInfo): What was measured.
        values (ndarray): Shape (methods, metrics, texts); NaN where there is no value.
        seconds (ndarray): Seconds that each method took per text, shape (methods,).
        texts (Sequence of ExplainedText): The texts with the scores of their tokens.
        class_names (tuple of str): Names of the classes.
        settings (Mapping): What the run depended on, for the report.
        seed (int): Seed of the run and of the bootstrap.
        replicates (Mapping): For metrics without values of single texts the value and
            its resamples, (methods, 1 + resamples), by name.
        curves (ndarray): Probability of the explained class for the whole text and
            with the top-scored fractions :data:`CURVE` of the tokens replaced, shape
            (methods, 1 + fractions, texts).
        failures (Mapping): Methods that failed, with the reason.
        notes (Mapping): Why a metric could not be measured, by method and metric.
        diagnostics (Mapping): What has to be known of the perturbations, such as the
            share of attacks that succeeded: means over the texts, by name.
    """

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
        """The properties that were measured, in the order of the metrics."""
        return tuple(dict.fromkeys(metric.property for metric in self.metrics))

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
        if metric in self.replicates:
            return self.replicates[metric][:, 1:]
        return resampled_means(self.values[:, self._column(metric)], self.seed)

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
        """For how many texts the metric has a value."""
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
            other (str): Name of the method that is taken off it.
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
        Whether a method is better than another beyond the noise: the 95% paired
        bootstrap interval of their difference does not hold 0, over six texts or more.

        Args:
            method (str): Name of a method.
            other (str): Name of another method.
            metric (str): Name of a metric.

        Returns:
            *bool*: Not corrected for the number of comparisons.
        """
        interval = self.difference(method, other, metric)
        measure = self.metrics[self._column(metric)]
        n = min(self.n_values(method, metric), self.n_values(other, metric))
        if metric not in self.replicates:
            pair = self.values[[self._row(method), self._row(other)]]
            n = int(np.isfinite(pair[:, self._column(metric)]).all(axis=0).sum())
        if n < FEWEST_PAIRS:
            return False
        if measure.higher_is_better:
            return interval.low > 1e-12
        return interval.high < -1e-12

    def not_beaten(self, metric: str) -> list[bool]:
        r"""
        For each method, whether it is the best at a metric or cannot be told from the
        best (paired bootstrap, 95%).

        Args:
            metric (str): Name of a metric.

        Returns:
            *list of bool*: In the order of ``methods``; False without a value.
        """
        return ranking.not_beaten_at(self, self.metrics[self._column(metric)])

    def average_rank(self, method: str, property: str) -> Interval:
        r"""
        Mean rank of a method over the metrics of a property, 1 for the best, with its
        95% bootstrap interval. Methods that failed are not ranked; one that has no
        value for a metric shares its last rank.

        Args:
            method (str): Name of a method.
            property (str): Name of a property.

        Returns:
            *Interval*: NaN throughout for a method that failed.

        Raises:
            KeyError: If one of the names is not in this comparison.
        """
        row = self._row(method)
        _position("property", property, list(self.properties))
        if method in self.failures:
            return Interval(float("nan"), float("nan"), float("nan"))
        return ranking.average_rank(self, row, property)

    def best_ranked(self, property: str) -> list[bool]:
        r"""
        For each method, whether its average rank is the best of a property or cannot be
        told from the best (paired bootstrap, 95%).

        Args:
            property (str): Name of a property.

        Returns:
            *list of bool*: In the order of ``methods``; False for one that failed.

        Raises:
            KeyError: If the property is not in this comparison.
        """
        _position("property", property, list(self.properties))
        return ranking.best_ranked(self, property)

    @property
    def ranked_properties(self) -> tuple[str, ...]:
        """The properties with several metrics, over which ranks are averaged; cost,
        which is no merit of an explanation, is not one of them."""
        names = [metric.property for metric in self.metrics]
        return tuple(p for p in self.properties if names.count(p) > 1 and p != "cost")

    def table(self) -> str:
        r"""
        Methods × metrics as plain text: average ranks first, then a block for each
        property with means and 95% bootstrap intervals. A star marks the best method
        and those that cannot be told from it. What failed is listed below with its
        reason.

        Returns:
            *str*: Several lines.
        """
        return text_table(self)

    def scores(self, method: str, example: int) -> _Array:
        r"""
        The scores of a text's tokens.

        Args:
            method (str): Name of a method.
            example (int): Place of the text, from 0.

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

    def to_frame(self) -> Any:
        r"""
        Every value as a row of a tidy table. It needs pandas.

        Returns:
            *pandas.DataFrame*: Columns ``example``, ``method``, ``metric``,
            ``property``, ``value``. Metrics without values of single texts have one
            row a method, with ``example`` -1. Missing values are NaN.

        Raises:
            ImportError: If pandas is not installed.

        Examples::

            >>> result.to_frame().groupby(["method", "metric"])["value"].median()
        """
        return ranking.to_frame(self)

    def save(self, path: "str | os.PathLike[str]") -> Path:
        r"""
        Writes all of it, scores included, into one file.

        Args:
            path (str or os.PathLike): File to write, replaced in one step; missing
                folders are made. It is a NumPy archive (.npz) without pickled objects.

        Returns:
            *Path*: The file.

        Raises:
            OSError: If the file cannot be written.

        Examples::

            >>> result.save("comparison.npz")
            >>> Comparison.load("comparison.npz").table()
        """
        return files.save(self, path)

    @classmethod
    def load(cls, path: "str | os.PathLike[str]") -> "Comparison":
        r"""
        Reads what :meth:`save` wrote.

        Args:
            path (str or os.PathLike): The file.

        Returns:
            *Comparison*

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it does not hold a comparison.
        """
        return cls(**files.load(path))

    def plot(self, kind: str = "bars", name: str | None = None) -> "Figure":
        r"""
        Draws the comparison with Matplotlib.

        Args:
            kind (str): "bars" for a property's metrics, with intervals; "cost" for
                faithfulness against seconds; "curves" for the probability as tokens
                are removed.
                Default: "bars"
            name (str, optional): For "bars" the property, for "cost" the metric; None
                takes the first property, and comprehensiveness or the first metric.
                Default: None

        Returns:
            *matplotlib.figure.Figure*

        Raises:
            ValueError: If ``kind`` is none of these.
            KeyError: If ``name`` is not in this comparison.

        Examples::

            >>> result.plot("bars", "faithfulness").savefig("faithfulness.png")
        """
        # The charts are made from a Comparison, so they are imported only here.
        from captum_attngrad.evaluation.plots import plot

        return plot(self, kind, name)

    def to_html(
        self,
        path: "str | os.PathLike[str]",
        title: str = "Explanations compared",
        n_texts: int = 10,
    ) -> Path:
        r"""
        Writes the whole comparison as one page that needs no network: the table, the
        charts, the first texts through Captum's ``visualize_text`` with a row for each
        method, and the settings.

        Args:
            path (str or os.PathLike): File to write, replaced in one step; missing
                folders are made.
            title (str, optional): Title of the page.
                Default: "Explanations compared"
            n_texts (int, optional): How many texts are shown.
                Default: 10

        Returns:
            *Path*: The file.

        Raises:
            ImportError: If IPython, which Captum needs for this, is not installed.
            OSError: If the file cannot be written.
        """
        from captum_attngrad.evaluation.report import comparison_page
        from captum_attngrad.visualization import write_page

        return write_page(comparison_page(self, title, n_texts), path)


def _position(kind: str, name: str, names: list[str]) -> int:
    if name not in names:
        raise KeyError(
            f"This comparison has no {kind} {name!r}; expected one of: "
            f"{', '.join(names)}."
        )
    return names.index(name)


__all__ = ["CURVE", "Comparison", "ExplainedText"]
