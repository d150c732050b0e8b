r"""What a comparison found, and how it is shown."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from captum_attngrad.compare.bootstrap import Interval, mean_interval, not_beaten
from captum_attngrad.compare.registry import Method
from captum_attngrad.metrics import Metric


@dataclass(frozen=True)
class ExplainedText:
    r"""
    One text, what the model said about it and what each method said about that.

    Args:
        tokens (tuple of str): Its tokens.
        predicted (int): The predicted class, which is the explained one.
        probability (float): The predicted class's probability.
        label (int, optional): True class; None if it was not given.
        scores (Mapping): Method name to the scores of the tokens, shape (tokens,).
    """

    tokens: tuple[str, ...]
    predicted: int
    probability: float
    label: int | None
    scores: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Comparison:
    r"""
    The result of :func:`compare`.

    Args:
        methods (tuple of Method): What was compared.
        metrics (tuple of Metric): What was measured.
        values (ndarray): Shape (methods, metrics, texts).
        seconds (ndarray): Seconds that each method took per text, shape (methods,).
        texts (tuple of ExplainedText): The texts with the scores of their tokens.
        class_names (tuple of str): Names of the classes.
        settings (Mapping): What the run depended on, for the report.
        seed (int): Seed of the run and of the bootstrap.
    """

    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    values: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    texts: tuple[ExplainedText, ...]
    class_names: tuple[str, ...]
    settings: Mapping[str, str]
    seed: int

    def interval(self, method: str, metric: str) -> Interval:
        r"""
        Mean over the texts with its 95% bootstrap interval.

        Args:
            method (str): Name of a method.
            metric (str): Name of a metric.

        Returns:
            *Interval*

        Raises:
            KeyError: If one of the names is not in this comparison.
        """
        row = _position("method", method, [m.name for m in self.methods])
        column = _position("metric", metric, [m.name for m in self.metrics])
        return mean_interval(self.values[row, column], self.seed)

    def not_beaten(self, metric: str) -> list[bool]:
        r"""
        For each method, whether it is the best at a metric or cannot be told from the
        best (paired bootstrap, 95%).

        Args:
            metric (str): Name of a metric.

        Returns:
            *list of bool*: In the order of ``methods``.
        """
        column = _position("metric", metric, [m.name for m in self.metrics])
        return not_beaten(
            self.values[:, column], self.metrics[column].higher_is_better, self.seed
        )

    def table(self) -> str:
        r"""
        Methods × metrics as plain text: mean, 95% bootstrap interval, and seconds per
        text. A star marks the best method and those that cannot be told from it.

        Returns:
            *str*: Several lines.
        """
        columns = [["method", *(method.name for method in self.methods)]]
        for metric in self.metrics:
            cells = [f"{metric.name} {arrow(metric)}"]
            marks = self.not_beaten(metric.name)
            for method, marked in zip(self.methods, marks, strict=True):
                mean, low, high = self.interval(method.name, metric.name)
                star = "*" if marked else " "
                cells.append(f"{mean:6.3f} [{low:6.3f}, {high:6.3f}]{star}")
            columns.append(cells)
        columns.append(["s/text", *(format_seconds(s) for s in self.seconds)])
        widths = [max(len(cell) for cell in column) for column in columns]
        lines = [
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in zip(*columns, strict=True)
        ]
        lines.insert(1, "-" * max(len(line) for line in lines))
        lines += [
            "",
            f"Mean over {len(self.texts)} texts [95% bootstrap interval]. "
            "↑ higher is better, ↓ lower is better.",
            "* the best, or not distinguishable from it (paired bootstrap, 95%).",
        ]
        return "\n".join(lines)

    def to_html(
        self,
        path: "str | os.PathLike[str]",
        title: str = "Explanations compared",
        n_texts: int = 10,
    ) -> Path:
        r"""
        Writes the whole comparison as one page that needs no network: the table, bar
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
        # The report is made from a Comparison, so it is imported only here.
        from captum_attngrad.compare.report import comparison_page
        from captum_attngrad.visualization import write_page

        return write_page(comparison_page(self, title, n_texts), path)


def arrow(metric: Metric) -> str:
    """The direction in which a metric gets better, as a sign."""
    return "↑" if metric.higher_is_better else "↓"


def format_number(value: float, digits: int) -> str:
    """A number as it is set in print: with a minus sign, and no negative zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.removeprefix("-")
    return text.replace("-", "−")


def format_seconds(seconds: float) -> str:
    """Seconds with two significant digits, never in exponent notation."""
    if seconds <= 0:
        return "0"
    digits = max(0, 1 - int(np.floor(np.log10(seconds))))
    return f"{seconds:.{digits}f}"


def _position(kind: str, name: str, names: list[str]) -> int:
    if name not in names:
        raise KeyError(
            f"This comparison has no {kind} {name!r}; expected one of: "
            f"{', '.join(names)}."
        )
    return names.index(name)
