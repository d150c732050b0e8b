"""Figures are pyplot's: a notebook shows them, and so does plt.show()."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_attngrad import (
    compare,
    plot_alignment,
    plot_heads,
    plot_metric,
    plot_token_scores,
)
from captum_attngrad.evaluation import Comparison
from tests.evaluation.planted import planted_text_model, planted_texts

PLOTS: list[Callable[..., tuple[Figure, Axes]]] = [
    lambda **options: plot_alignment(["a"], ["b", "c"], [[1, -1]], **options),
    lambda **options: plot_heads([[1.0, -1.0]], **options),
    lambda **options: plot_token_scores(["a", "b"], [1, -1], **options),
    lambda **options: plot_token_scores(["a"] * 90, range(90), **options),
]


@pytest.fixture(scope="module")
def result() -> Comparison:
    return compare(
        planted_text_model(),
        planted_texts(3),
        methods=["leave_one_out", "random"],
        metrics=["comprehensiveness"],
        show_progress=False,
    )


@pytest.mark.parametrize("plot", PLOTS)
def test_a_new_figure_is_registered_and_stays_open(plot: Any) -> None:
    figure, ax = plot()
    assert [plt.figure(number) for number in plt.get_fignums()] == [figure]
    assert figure.axes[0] is ax


@pytest.mark.parametrize("plot", PLOTS)
def test_the_callers_axes_make_no_figure(plot: Any) -> None:
    figure = Figure()
    given = figure.add_subplot()
    assert plot(ax=given) == (figure, given)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("kind", ["bars", "cost", "curves"])
def test_charts_of_a_comparison_are_registered(result: Comparison, kind: str) -> None:
    figure = result.plot(kind)
    assert [plt.figure(number) for number in plt.get_fignums()] == [figure]


def test_one_metric_is_registered(result: Comparison) -> None:
    figure, _ = plot_metric(result, "comprehensiveness")
    assert plt.fignum_exists(figure.number)


def test_a_report_leaves_pyplot_as_it_was(result: Comparison, tmp_path: Any) -> None:
    mine = plt.figure()
    result.to_html(tmp_path / "index.html")
    assert [plt.figure(number) for number in plt.get_fignums()] == [mine]
    assert plt.gcf() is mine
