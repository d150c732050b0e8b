r"""Scores of outputs against inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_attngrad._scores import (
    check_finite,
    checked_scores,
    checked_tokens,
)
from captum_attngrad.visualization._labels import labels_for
from captum_attngrad.visualization._signed_map import MapAxis, draw_signed_map
from captum_attngrad.visualization.words import MIN_PEAK


def plot_alignment(
    output_tokens: Sequence[str],
    input_tokens: Sequence[str],
    scores: Tensor | Sequence[Any],
    ax: Axes | None = None,
    *,
    scale_rows: bool = False,
) -> tuple[Figure, Axes]:
    r"""
    Draws which input token supports which output token, and which argues against it.

    One row for each output, one column for each input. White is zero; green with a
    plus supports the output, purple with a minus argues against it. In maps too fine
    for a mark in each cell the strongest cell of each neighborhood has one, and of
    labels that do not all fit the strongest rows and columns keep theirs.

    Args:
        output_tokens (Sequence of str): What the model wrote, from top to bottom.
        input_tokens (Sequence of str): What it read, from left to right.
        scores (Tensor, array or nested list): Scores, shape (outputs, inputs); a
            leading batch dimension of 1 is dropped. Any real dtype; scores of padding
            after the last token are left out.
        ax (Axes, optional): Where to draw; the color bar takes a part of it.
            None makes a new figure, which notebooks and ``plt.show()`` show.
            Default: None
        scale_rows (bool, optional): Whether each row is divided by its strongest score,
            so that weak outputs show their inputs too. Rows that have vanished, with no
            score of 2**-24 (6e-08) or more, stay white.
            Default: False

    Returns:
        *tuple of Figure and Axes*

    Raises:
        ValueError: If a score is NaN or infinite, or shapes do not agree.
        TypeError: If tokens are not lists of strings or scores not real numbers.

    Examples::

        >>> figure, ax = plot_alignment(["N", "AY", "T"], list("night"), scores)
        >>> figure.savefig("alignment.png")
    """
    found = checked_scores(scores, "(outputs, inputs)")
    outputs = checked_tokens("output_tokens", output_tokens, found.shape[0])
    inputs = checked_tokens("input_tokens", input_tokens, found.shape[1])
    found = found[: len(outputs), : len(inputs)]
    check_finite(found, ("output", outputs), ("input", inputs))
    bar_note = ""
    if scale_rows:
        peaks = np.abs(found).max(axis=1, keepdims=True)
        found = np.where(peaks < MIN_PEAK, 0, found / np.maximum(peaks, MIN_PEAK))
        bar_note = "relative to each row"
    return draw_signed_map(
        found,
        MapAxis("output", labels_for(outputs)),
        MapAxis("input", labels_for(inputs)),
        ax,
        bar_note,
    )
