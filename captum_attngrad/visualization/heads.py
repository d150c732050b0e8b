r"""Scores of attention heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_attngrad._scores import (
    Array,
    as_array,
    check_finite,
    checked_scores,
    checked_tokens,
)
from captum_attngrad.visualization._labels import labels_for
from captum_attngrad.visualization._signed_map import MapAxis, draw_signed_map


def plot_heads(
    scores: Tensor | Sequence[Any],
    ax: Axes | None = None,
    *,
    layer_names: Sequence[str] | None = None,
) -> tuple[Figure, Axes]:
    r"""
    Draws which attention heads support the explained output, and which argue against
    it.

    One row for each layer, the first on top, one column for each head. White is zero;
    green with a plus supports the output, purple with a minus argues against it. Layers
    and heads are counted from 0, as ``heads=`` of the attribution methods counts them.
    Where a layer has fewer heads than another, the rest of its row is hatched.

    Args:
        scores (Tensor, array or list): Scores of one example: shape (layers, heads),
            or one entry of shape (heads,) or (1, heads) for each layer, as
            ``LayerAttentionGradient.attribute(..., reduce="head")`` returns for a batch
            of one. Any real dtype.
        ax (Axes, optional): Where to draw; the color bar takes a part of it. None
            makes a new figure, which notebooks and ``plt.show()`` show.
            Default: None
        layer_names (Sequence of str, optional): Labels of the rows.
            Default: None, their numbers

    Returns:
        *tuple of Figure and Axes*

    Raises:
        ValueError: If a score is NaN or infinite, or shapes do not agree.
        TypeError: If scores are not real numbers or names not strings.

    Examples::

        >>> heads = LayerAttentionGradient(model).attribute(
        ...     input_ids, target=1, reduce="head"
        ... )
        >>> figure, ax = plot_heads(heads)
    """
    layers = _layers(scores)
    if not layers:
        raise ValueError("scores has no layers; there is nothing to show.")
    names = [str(i) for i in range(len(layers))]
    if layer_names is not None:
        if len(layer_names) != len(layers):
            raise ValueError(
                f"layer_names has {len(layer_names)} entries for {len(layers)} layers."
            )
        names = checked_tokens("layer_names", layer_names, len(layers))
    heads = [str(i) for i in range(max(len(layer) for layer in layers))]
    table = np.zeros((len(layers), len(heads)))
    for row, layer in zip(table, layers, strict=True):
        row[: len(layer)] = layer
    check_finite(table, ("layer", names), ("head", heads))
    for row, layer in zip(table, layers, strict=True):
        row[len(layer) :] = np.nan
    return draw_signed_map(
        table,
        MapAxis("layer", labels_for(names)),
        MapAxis("head", labels_for(heads)),
        ax,
    )


def _layers(scores: Tensor | Sequence[Any]) -> list[Array]:
    """The scores of each layer, (heads,)."""
    if not isinstance(scores, (list, tuple)):
        return list(checked_scores(scores, "(layers, heads)"))
    layers = []
    for i, layer in enumerate(scores):
        array = as_array(layer)
        if array.ndim == 2 and array.shape[0] == 1:
            array = array[0]
        if array.ndim != 1 or not array.size:
            raise ValueError(
                f"scores[{i}] has shape {array.shape}; expected (heads,) or (1, heads),"
                " the scores of one example. For example 0 of a batch: "
                "[layer[0] for layer in scores]."
            )
        layers.append(array)
    return layers
