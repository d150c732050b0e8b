r"""Scores of tokens as bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_attngrad._scores import (
    Array,
    check_finite,
    checked_scores,
    checked_tokens,
)
from captum_attngrad.visualization._figures import figure_of, new_figure
from captum_attngrad.visualization._labels import (
    CHARACTER_WIDTH,
    FONT_SIZE,
    LINE_HEIGHT,
    Labels,
    labels_for,
    shortened,
    size_in_points,
    spaced,
)
from captum_attngrad.visualization._signs import (
    MEANING,
    NEGATIVE,
    POSITIVE,
    say_all_zero,
    signed_number,
)

# More tokens than this stand side by side, without a label for each.
_MAX_ROWS = 60
_ROW = 14.5  # points
# Of the strongest score.
_MIN_NAMED = 0.1
# Of the height, on either side of the bars.
_NAME_SHARE = 0.33


def plot_token_scores(
    tokens: Sequence[str],
    scores: Tensor | Sequence[Any],
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    r"""
    Draws one bar for each token: to the right of zero if it supports the explained
    output, to the left if it argues against it, with the number beside it.

    Of more than 60 tokens there is one line for each, above or below zero, from left to
    right as in the text, and the strongest are named.

    Args:
        tokens (Sequence of str): The tokens of one text.
        scores (Tensor, array or list): One score for each token; a leading batch
            dimension of 1 is dropped. Any real dtype; scores of padding after the last
            token are left out.
        ax (Axes, optional): Where to draw; None makes a new figure, which notebooks and
            ``plt.show()`` show.
            Default: None

    Returns:
        *tuple of Figure and Axes*

    Raises:
        ValueError: If a score is NaN or infinite, or the numbers of tokens and scores
            do not agree.
        TypeError: If tokens is not a list of strings or scores not real numbers.

    Examples::

        >>> figure, ax = plot_token_scores(["a", "fine", "film"], [0.1, 0.8, -0.2])
        >>> figure.savefig("scores.png")
    """
    found = checked_scores(scores, "(tokens,)")
    words = checked_tokens("tokens", tokens, len(found))
    found = found[: len(words)]
    check_finite(found, ("token", words))
    labels = labels_for(words)
    peak = float(np.abs(found).max())
    if len(words) <= _MAX_ROWS:
        ax = _draw_rows(labels, found, peak, ax)
    else:
        ax = _draw_lines(labels, found, peak, ax)
    if peak == 0:
        say_all_zero(ax)
    ax.spines[["top", "right"]].set_visible(False)
    return figure_of(ax), ax


def _draw_rows(labels: Labels, scores: Array, peak: float, ax: Axes | None) -> Axes:
    n = len(scores)
    row = _ROW
    if ax is None:
        size = (4.6 + labels.width() / 72, max(1.5, (n * _ROW + 40) / 72))
        ax = new_figure(*size).add_subplot()
    else:
        row = size_in_points(ax)[1] / n
    ax.barh(range(n), scores, color=_colors(scores), height=0.7)
    shown = spaced(np.abs(scores), row)
    ax.set_yticks(shown, [labels.texts[i] for i in shown], **labels.style)
    ax.tick_params(axis="y", length=0)
    for i in shown if peak > 0 else ():
        ax.annotate(
            signed_number(scores[i], peak),
            (scores[i], i),
            xytext=(-3 if scores[i] < 0 else 3, 0),
            textcoords="offset points",
            ha="right" if scores[i] < 0 else "left",
            va="center",
            fontsize=FONT_SIZE - 1,
        )
    ax.set_ylim(n - 0.4, -0.6)
    ax.set_xlim(*_limits(scores, peak, 0.24, 0.24))
    ax.axvline(0, color=mpl.rcParams["axes.edgecolor"], linewidth=0.8)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(MEANING, fontsize=FONT_SIZE)
    _number_ends(ax.set_xticks, scores, peak)
    return ax


def _draw_lines(labels: Labels, scores: Array, peak: float, ax: Axes | None) -> Axes:
    n = len(scores)
    width, height = 700.0, 240.0
    if ax is None:
        ax = new_figure(11, 4.2).add_subplot()
    else:
        width, height = size_in_points(ax)
    places = np.arange(n)
    for chosen, color, meaning in (
        (scores > 0, POSITIVE, "supports"),
        (scores < 0, NEGATIVE, "argues against"),
    ):
        ax.vlines(
            places[chosen],
            0,
            scores[chosen],
            colors=color,
            linewidth=max(0.6, 0.7 * width / n),
            label=meaning,
        )
    named = _worth_a_name(scores, peak, width / n)
    most_characters = int(_NAME_SHARE * height / CHARACTER_WIDTH)
    below, above = 0.0, 0.0
    for i in named:
        up = bool(scores[i] > 0)
        text = shortened(labels.texts[i], most_characters)
        share = (CHARACTER_WIDTH * len(text) + FONT_SIZE) / height
        below, above = max(below, share * (not up)), max(above, share * up)
        ax.annotate(
            text,
            (i, scores[i]),
            xytext=(0, 3 if up else -3),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="bottom" if up else "top",
            **labels.style,
        )
    ax.set_xlim(-1, n)
    rest = 1 - below - above
    ax.set_ylim(*_limits(scores, peak, below / rest, above / rest))
    ax.axhline(0, color=mpl.rcParams["axes.edgecolor"], linewidth=0.8)
    ax.spines["bottom"].set_visible(False)
    ax.set_xlabel(f"position of the token ({len(named)} of {n} named)")
    ax.set_ylabel(MEANING, fontsize=FONT_SIZE)
    _number_ends(ax.set_yticks, scores, peak)
    return ax


def _worth_a_name(scores: Array, peak: float, points_per_token: float) -> list[int]:
    """On each side of zero the strongest tokens that have room for a name, if no bar
    stands in its way."""
    half = math.ceil(LINE_HEIGHT / points_per_token / 2)
    named = []
    for side in (1, -1):
        strength = np.maximum(side * scores, 0)
        for i in spaced(strength, points_per_token):
            near = strength[max(0, i - half) : i + half + 1]
            if 0 < strength[i] >= max(_MIN_NAMED * peak, near.max()):
                named.append(i)
    return named


def _colors(scores: Array) -> list[str]:
    return [POSITIVE if score > 0 else NEGATIVE for score in scores]


def _limits(
    scores: Array, peak: float, below: float, above: float
) -> tuple[float, float]:
    """Of the axis of the scores, with room for what stands at the ends of the bars, as
    a share of the room for the bars."""
    if peak == 0:
        return -1.0, 1.0
    low, high = min(0.0, float(scores.min())), max(0.0, float(scores.max()))
    reach = high - low
    return low - below * reach * (low < 0), high + above * reach * (high > 0)


def _number_ends(set_ticks: Callable[..., Any], scores: Array, peak: float) -> None:
    """Numbers with signs on the axis of the scores."""
    ticks = sorted({min(0.0, float(scores.min())), 0.0, max(0.0, float(scores.max()))})
    # A short end would run into the zero.
    ticks = [t for t in ticks if t == 0 or abs(t) > 0.15 * peak]
    set_ticks(ticks, [signed_number(tick, peak) for tick in ticks], fontsize=FONT_SIZE)
