r"""Charts of a comparison."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_attngrad.evaluation.results import CURVE
from captum_attngrad.evaluation.results import Results as Comparison
from captum_attngrad.evaluation.results.bootstrap import mean_of
from captum_attngrad.evaluation.tables import arrow, format_number
from captum_attngrad.visualization._figures import figure_of, new_figure

_COST_SIZE = (7.2, 4.8)
_CURVES_SIZE = (8.2, 4.8)
_BAR = "#3b6ea5"
_ANCHOR_BAR = "#a9a9a9"
# Reference methods: how good and how bad scores can be.
ANCHORS = ("leave_one_out", "random")
# Told apart by color and by dash.
_COLORS = ("#1b5e9e", "#c2571a", "#2c7d3f", "#8e3b8a", "#8a6d1b", "#3a8f99")
_DASHES = ("-", "--", ":", "-.")


def plot_metric(
    comparison: Comparison, metric: str, ax: Axes | None = None
) -> tuple[Figure, Axes]:
    r"""
    One bar for each method: the mean of a metric with its 95% bootstrap interval.

    Args:
        comparison (Comparison): What was measured.
        metric (str): Name of the metric.
        ax (Axes, optional): Where to draw; None makes a new figure.
            Default: None

    Returns:
        *tuple of Figure and Axes*

    Raises:
        KeyError: If the metric is not in the comparison.

    Examples::

        >>> figure, ax = plot_metric(result, "comprehensiveness")
        >>> figure.savefig("comprehensiveness.png")
    """
    comparison.interval(comparison.methods[0].name, metric)  # the metric is known
    names = [method.name for method in comparison.finished]
    found = {name: comparison.interval(name, metric) for name in names}
    names = [name for name in names if np.isfinite(found[name].mean)]
    intervals = np.array([found[name] for name in names]).reshape(-1, 3)
    measure = next(m for m in comparison.metrics if m.name == metric)
    if ax is None:
        ax = new_figure(5.2, _bars_height(len(names))).add_subplot()
    if names:
        _draw_bars(ax, names, intervals)
    else:
        ax.text(0.5, 0.5, "no values", ha="center", transform=ax.transAxes)
        ax.set_axis_off()
    better = "higher" if measure.higher_is_better else "lower"
    # Flush right, so that a long name runs over the labels and not off the figure.
    ax.set_title(
        f"{metric} {arrow(measure)} ({better} is better)", fontsize=11, loc="right"
    )
    return figure_of(ax), ax


def _bars_height(n: int) -> float:
    return 1.1 + 0.36 * max(1, n)


def _draw_bars(
    ax: Axes, names: list[str], intervals: "np.ndarray[tuple[int, ...], Any]"
) -> None:
    means = intervals[:, 0]
    bars = ax.barh(
        names,
        means,
        # A percentile interval of a ratio need not hold the ratio itself.
        xerr=np.maximum([means - intervals[:, 1], intervals[:, 2] - means], 0),
        color=[_ANCHOR_BAR if name in ANCHORS else _BAR for name in names],
        ecolor="#1b1b1b",
        capsize=3,
        height=0.7,
    )
    # Beside the interval, away from the bar, so that bar and number never overlap.
    edge = np.where(means >= 0, intervals[:, 2], intervals[:, 1])
    for bar, mean, end in zip(bars, means, edge, strict=True):
        ax.annotate(
            format_number(mean, 2),
            (end, bar.get_y() + bar.get_height() / 2),
            xytext=(5 if mean >= 0 else -5, 0),
            textcoords="offset points",
            va="center",
            ha="left" if mean >= 0 else "right",
            fontsize=9,
        )
    ax.invert_yaxis()
    # Room for the numbers, on the left only where a bar goes there.
    low, high = min(0.0, intervals.min()), max(0.0, intervals.max())
    room = 0.18 * (high - low or 1.0)
    ax.set_xlim(low - 1.2 * room if means.min() < 0 else low, high + room)
    ax.axvline(0, color="#1b1b1b", linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def plot_property(comparison: Comparison, property: str) -> Figure:
    r"""
    The metrics of a property side by side, as :func:`plot_metric` draws them.

    Args:
        comparison (Comparison): What was measured.
        property (str): Name of the property.

    Returns:
        *Figure*

    Raises:
        KeyError: If the property is not in the comparison.
    """
    if property not in comparison.properties:
        raise KeyError(
            f"This comparison has no property {property!r}; expected one of: "
            f"{', '.join(comparison.properties)}."
        )
    chosen = [m.name for m in comparison.metrics if m.property == property]
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    height = _bars_height(len(comparison.finished))
    figure = new_figure(5.2 * columns, height * rows)
    for place, name in enumerate(chosen, start=1):
        plot_metric(comparison, name, figure.add_subplot(rows, columns, place))
    return figure


def _name_points(ax: Axes, points: list[tuple[str, float, float]]) -> None:
    """Names in a column at the right, each with a line to its point: beside points
    that are close to each other names would overlap."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    points = sorted(points, key=lambda point: point[2])
    gap = min(0.055, 1 / max(1, len(points)))
    above = -gap
    heights = []
    for _, _, mean in points:
        above = max(above + gap, (mean - low) / (high - low))
        heights.append(above)
    for place, (name, seconds, mean) in enumerate(points):
        most = 1 - gap * (len(points) - 1 - place)
        ax.annotate(
            name,
            (seconds, mean),
            xytext=(1.03, min(heights[place], most)),
            textcoords="axes fraction",
            # relpos: where on the name the line ends, here the middle of its left side.
            arrowprops={
                "arrowstyle": "-",
                "color": "#c9c9c9",
                "linewidth": 0.7,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
            va="center",
            fontsize=8,
        )


def plot_cost(comparison: Comparison, metric: str, ax: Axes | None = None) -> Figure:
    r"""
    A metric, with its 95% bootstrap interval, against the seconds of each method.

    Args:
        comparison (Comparison): What was measured.
        metric (str): Name of the metric.
        ax (Axes, optional): Where to draw; None makes a new figure.
            Default: None

    Returns:
        *Figure*: Seconds are on a logarithmic axis.

    Raises:
        KeyError: If the metric is not in the comparison.
    """
    if ax is None:
        ax = new_figure(*_COST_SIZE).add_subplot()
    measure = None
    points = []
    for method, seconds in zip(comparison.methods, comparison.seconds, strict=True):
        mean, low, high = comparison.interval(method.name, metric)
        measure = next(m for m in comparison.metrics if m.name == metric)
        if not np.isfinite([mean, seconds]).all():
            continue
        color = _ANCHOR_BAR if method.name in ANCHORS else _BAR
        ax.errorbar(
            seconds,
            mean,
            yerr=[[max(0, mean - low)], [max(0, high - mean)]],
            fmt="o",
            color=color,
            ecolor="#b9c6d4",
        )
        points.append((method.name, seconds, mean))
    assert measure is not None
    ax.set_xscale("log")
    ax.margins(x=0.1)
    _name_points(ax, points)
    ax.set_xlabel("seconds per text")
    ax.set_ylabel(f"{metric} {arrow(measure)}")
    ax.set_title(f"{metric} against cost", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    return figure_of(ax)


def plot_curves(comparison: Comparison, ax: Axes | None = None) -> Figure:
    r"""
    The probability of the explained class as the top-scored tokens are replaced: the
    faster it falls, the more those tokens mattered.

    Args:
        comparison (Comparison): What was measured.
        ax (Axes, optional): Where to draw; None makes a new figure.
            Default: None

    Returns:
        *Figure*: One curve for each method, the mean over the texts.
    """
    if ax is None:
        ax = new_figure(*_CURVES_SIZE).add_subplot()
    figure = figure_of(ax)
    fractions = [0.0, *CURVE]
    for i, method in enumerate(comparison.methods):
        means = mean_of(comparison.curves[i].astype(float))
        if not np.isfinite(means).any():
            continue
        ax.plot(
            [100 * fraction for fraction in fractions],
            means,
            label=method.name,
            color="#555555" if method.name in ANCHORS else _COLORS[i % len(_COLORS)],
            linestyle=_DASHES[(i // len(_COLORS)) % len(_DASHES)],
            linewidth=2.4 if method.name in ANCHORS else 1.5,
        )
    ax.set_xlabel("top-scored tokens replaced, %")
    ax.set_ylabel("probability of the explained class")
    ax.set_title("Removal curves (a faster fall is better)", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure


def plot(comparison: Comparison, kind: str, name: str | None) -> Figure:
    """See :meth:`Comparison.plot`."""
    if kind == "bars":
        return plot_property(comparison, name or comparison.properties[0])
    if kind == "curves":
        return plot_curves(comparison)
    if kind != "cost":
        raise ValueError(f"kind is {kind!r}; expected 'bars', 'cost' or 'curves'.")
    return plot_cost(comparison, name or faithful_metric(comparison))


def faithful_metric(comparison: Comparison) -> str:
    """Comprehensiveness, or else the first metric."""
    names = [metric.name for metric in comparison.metrics]
    return "comprehensiveness" if "comprehensiveness" in names else names[0]


def metric_svg(comparison: Comparison, metric: str) -> bytes:
    """The chart of :func:`plot_metric` for a page."""
    height = _bars_height(len(comparison.finished))
    with _figure_for_page(5.2, height) as (ax, svg):
        plot_metric(comparison, metric, ax)
    return svg.getvalue()


def wide_svgs(comparison: Comparison) -> list[bytes]:
    """The charts of :func:`plot_cost` and :func:`plot_curves` for a page."""
    with _figure_for_page(*_COST_SIZE) as (ax, cost):
        plot_cost(comparison, faithful_metric(comparison), ax)
    with _figure_for_page(*_CURVES_SIZE) as (ax, curves):
        plot_curves(comparison, ax)
    return [cost.getvalue(), curves.getvalue()]


@contextmanager
def _figure_for_page(width: float, height: float) -> Iterator[tuple[Axes, BytesIO]]:
    """Axes that pyplot does not know, and the SVG of what was drawn in them: the same
    bytes for the same chart, with text as paths, which needs no fonts."""
    ax = Figure(figsize=(width, height), layout="constrained").add_subplot()
    svg = BytesIO()
    yield ax, svg
    with mpl.rc_context({"svg.hashsalt": "captum-attngrad", "svg.fonttype": "path"}):
        figure_of(ax).savefig(svg, format="svg", metadata={"Date": None})
