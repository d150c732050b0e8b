r"""Charts of a comparison."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captum_attngrad.compare.comparison import Comparison, arrow, format_number

_BAR = "#3b6ea5"
_ANCHOR_BAR = "#a9a9a9"


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
    names = [method.name for method in comparison.methods]
    intervals = np.array([comparison.interval(name, metric) for name in names])
    measure = next(m for m in comparison.metrics if m.name == metric)
    if ax is None:
        height = 1.1 + 0.36 * len(names)
        ax = Figure(figsize=(5.2, height), layout="constrained").add_subplot()
    means = intervals[:, 0]
    bars = ax.barh(
        names,
        means,
        xerr=[means - intervals[:, 1], intervals[:, 2] - means],
        color=[_ANCHOR_BAR if name == "random" else _BAR for name in names],
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
    better = "higher" if measure.higher_is_better else "lower"
    ax.set_title(f"{metric} {arrow(measure)} ({better} is better)", fontsize=11)
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure, ax


def figure_svg(figure: Figure) -> bytes:
    r"""
    A figure as SVG, the same bytes for the same figure.

    Args:
        figure (Figure): The figure.

    Returns:
        *bytes*: The SVG file; text is drawn as paths, so it needs no fonts.
    """
    with mpl.rc_context({"svg.hashsalt": "captum-attngrad", "svg.fonttype": "path"}):
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
