"""Maps of signed scores in cells."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from captum_attngrad._scores import Array
from captum_attngrad.visualization._figures import figure_of, new_figure
from captum_attngrad.visualization._labels import (
    FONT_SIZE,
    LINE_HEIGHT,
    Labels,
    size_in_points,
    spaced,
)
from captum_attngrad.visualization._signs import (
    DIVERGING,
    INK,
    MEANING,
    say_all_zero,
    signed_number,
)

# All in points.
_CELL = 22.0
_MIN_SIDE = 66.0
_MAX_SIDE = 640.0
_MAX_BAR = 200.0
_COLORBAR = 90.0
_MIN_MARKED_CELL = 8.0
_BETWEEN_MARKS = 20.0
# Weaker scores are next to white, and have no mark.
_MIN_MARKED = 0.05
_MIN_MARKED_PEAK = 0.2
_MAX_DRAWN = 800

Places = NDArray[np.intp]


class MapAxis(NamedTuple):
    """Labels of the rows or columns, and what they are."""

    name: str
    labels: Labels

    @property
    def length(self) -> float:
        """Of the axis in a figure of its own, in points."""
        return min(_MAX_SIDE, max(_MIN_SIDE, _CELL * len(self.labels.texts)))


def draw_signed_map(
    scores: Array,
    rows: MapAxis,
    columns: MapAxis,
    ax: Axes | None,
    bar_note: str = "",
) -> tuple[Figure, Axes]:
    """Draws (rows, columns) in colors around white. What is NaN is hatched."""
    known = np.where(np.isnan(scores), 0, scores)
    strength = np.abs(known)
    peak = float(strength.max())
    if ax is None:
        size = (columns.length, rows.length)
        ax = _new_axes(rows, columns)
    else:
        size = size_in_points(ax)
    n_rows, n_columns = scores.shape
    image = ax.imshow(
        _strongest(_strongest(scores.T).T),
        cmap=DIVERGING,
        vmin=-(peak or 1),
        vmax=peak or 1,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, n_columns - 0.5, n_rows - 0.5, -0.5),
    )
    if np.isnan(scores).any():
        ax.patch.set(hatch="////", edgecolor="#b5b5b5", linewidth=0)
    cell = (size[0] / scores.shape[1], size[1] / scores.shape[0])
    _label(ax, rows, spaced(strength.max(axis=1), cell[1]), vertical=True)
    _label(ax, columns, spaced(strength.max(axis=0), cell[0]), cell=cell[0])
    if peak > 0:
        _mark(ax, known / peak, cell)
    else:
        say_all_zero(ax)
    figure = figure_of(ax)
    _add_colorbar(figure, ax, image, peak, size[1], bar_note)
    return figure, ax


def _new_axes(rows: MapAxis, columns: MapAxis) -> Axes:
    around = LINE_HEIGHT * 3.5
    width = columns.length + rows.labels.width() + around + _COLORBAR
    height = max(rows.length + columns.labels.width() + around, 2.4 * 72)
    return new_figure(width / 72, height / 72).add_subplot()


def _label(
    ax: Axes,
    axis: MapAxis,
    shown: list[int],
    cell: float = 0.0,
    vertical: bool = False,
) -> None:
    texts = [axis.labels.texts[i] for i in shown]
    n = len(axis.labels.texts)
    name = axis.name if len(shown) == n else f"{axis.name} ({len(shown)} of {n} named)"
    if vertical:
        ax.set_yticks(shown, texts, **axis.labels.style)
        ax.set_ylabel(name)
    else:
        upright = len(shown) == n and axis.labels.width() <= 0.9 * cell
        ax.set_xticks(shown, texts, rotation=0 if upright else 90, **axis.labels.style)
        ax.set_xlabel(name)
    ax.tick_params(axis="y" if vertical else "x", length=2)


def _mark(ax: Axes, relative: Array, cell: tuple[float, float]) -> None:
    """A plus or a minus in the cells; where they are too small, in the strongest of
    each neighborhood."""
    places = _places_to_mark(np.abs(relative), cell)
    values = relative[places[:, 0], places[:, 1]]
    colors = np.full(len(values), INK)
    if min(cell) >= _MIN_MARKED_CELL:
        # About the luminance, and where white and ink stand out alike.
        shades = DIVERGING((values + 1) / 2)[:, :3] ** 2.2 @ (0.2126, 0.7152, 0.0722)
        colors[shades < 0.2] = "#ffffff"
    size = min(7.0, max(5.0, 0.4 * min(cell)))
    for marker, chosen in (("+", values > 0), ("_", values < 0)):
        ax.scatter(
            places[chosen, 1],
            places[chosen, 0],
            s=size**2,
            marker=marker,
            c=colors[chosen],
            linewidths=1.1,
            label="supports" if marker == "+" else "argues against",
        )


def _places_to_mark(strength: Array, cell: tuple[float, float]) -> Places:
    if min(cell) >= _MIN_MARKED_CELL:
        return np.argwhere(strength >= _MIN_MARKED)
    wide, high = (math.ceil(_BETWEEN_MARKS / length) for length in cell)
    found = []
    for top in range(0, strength.shape[0], high):
        for left in range(0, strength.shape[1], wide):
            block = strength[top : top + high, left : left + wide]
            row, column = np.unravel_index(int(block.argmax()), block.shape)
            if block[row, column] >= _MIN_MARKED_PEAK:
                found.append((top + int(row), left + int(column)))
    places = np.array(found, dtype=np.intp).reshape(-1, 2)
    # The strongest of two neighboring blocks may lie next to each other.
    chosen: list[int] = []
    for i in np.argsort(-strength[places[:, 0], places[:, 1]], kind="stable"):
        apart = np.abs(places[chosen] - places[i]) * (cell[1], cell[0])
        if not (apart < _BETWEEN_MARKS / 2).all(axis=1).any():
            chosen.append(int(i))
    return places[chosen]


def _strongest(scores: Array) -> Array:
    """Of more rows than a screen has pixels, the strongest of a few in place of each
    few, so that no peak is lost."""
    if len(scores) <= _MAX_DRAWN:
        return scores
    n_groups = math.ceil(len(scores) / math.ceil(len(scores) / _MAX_DRAWN))
    edges = np.linspace(0, len(scores), n_groups + 1).round().astype(int)
    groups = (scores[start:end] for start, end in pairwise(edges))
    return np.array(
        [np.take_along_axis(g, np.abs(g).argmax(0)[None], 0)[0] for g in groups]
    )


def _add_colorbar(
    figure: Figure,
    ax: Axes,
    image: AxesImage,
    peak: float,
    height: float,
    note: str,
) -> None:
    bar = figure.colorbar(
        image, ax=ax, shrink=min(1.0, _MAX_BAR / height), anchor=(0.0, 1.0)
    )
    label = "\n".join([MEANING.replace("      ", "\n"), note]).strip()
    bar.set_label(label, fontsize=FONT_SIZE)
    ticks = [-peak, 0.0, peak] if peak > 0 else [0.0]
    bar.set_ticks(
        ticks, labels=[signed_number(tick, peak) for tick in ticks], fontsize=FONT_SIZE
    )
