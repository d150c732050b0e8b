r"""The result of a comparison: its numbers, and how they are shown and kept."""

import os
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from captum_attngrad.evaluation.html_table import html_table
from captum_attngrad.evaluation.plots import plot
from captum_attngrad.evaluation.report import comparison_page
from captum_attngrad.evaluation.results import Results
from captum_attngrad.evaluation.store import comparison_file
from captum_attngrad.evaluation.tables import text_table
from captum_attngrad.visualization import write_page


@dataclass(frozen=True, repr=False)
class Comparison(Results):
    r"""
    The result of :func:`compare`.

    Args:
        methods (tuple of MethodInfo): The compared methods.
        metrics (tuple of MetricInfo): The metrics.
        values (ndarray): Shape (methods, metrics, texts); NaN where there is no value.
        seconds (ndarray): Seconds that each method took per text, shape (methods,).
        texts (Sequence of ExplainedText): The texts with the scores of their tokens.
        class_names (tuple of str): Names of the classes.
        settings (Mapping): The settings of the run, for the report.
        seed (int): Seed of the run and of the bootstrap.
        replicates (Mapping): For metrics without values of single texts the value and
            its resamples, (methods, 1 + resamples), by name.
        curves (ndarray): Probability of the explained class for the whole text and
            with the top-scored fractions of the tokens masked, shape
            (methods, 1 + fractions, texts).
        failures (Mapping): Methods that failed, with the reason.
        notes (Mapping): Why a metric could not be measured, by method and metric.
        diagnostics (Mapping): Facts about the perturbations, such as the share of
            successful attacks: means over the texts, by name.
    """

    def table(self) -> str:
        r"""
        Methods × metrics as plain text: average ranks first, then a block for each
        property with means and 95% bootstrap intervals. A star marks the best method
        and those that are not significantly worse. Failures are listed below with their
        reasons.

        Returns:
            *str*: Several lines.
        """
        return text_table(self)

    def __repr__(self) -> str:
        return (
            f"Comparison({len(self.methods)} methods, {len(self.metrics)} metrics, "
            f"{len(self.texts)} texts)"
        )

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """A small table, for notebooks."""
        return html_table(self)

    def save(self, path: "str | os.PathLike[str]") -> Path:
        r"""
        Writes the whole comparison, scores included, into one file.

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
        return comparison_file.save(self, path)

    @classmethod
    def load(cls, path: "str | os.PathLike[str]") -> "Comparison":
        r"""
        Reads a file that :meth:`save` wrote.

        Args:
            path (str or os.PathLike): The file.

        Returns:
            *Comparison*

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it does not hold a comparison.
        """
        return cls(**comparison_file.load(path))

    def plot(self, kind: str = "bars", name: str | None = None) -> Figure:
        r"""
        Draws the comparison with Matplotlib.

        Args:
            kind (str): "bars" for a property's metrics, with intervals; "cost" for
                faithfulness against seconds; "curves" for the probability as tokens
                are masked.
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
        return write_page(comparison_page(self, title, n_texts), path)
