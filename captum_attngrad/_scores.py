"""Scores and tokens as callers have them, checked before they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, float64

Array = NDArray[np.float64]


def checked_scores(scores: object, shape: str) -> Array:
    """Scores as float64, with the dimensions that ``shape`` names, as in "(outputs,
    inputs)". A batch of one example loses its first dimension."""
    array = as_array(scores)
    dims = shape.count(",") + (not shape.endswith(",)"))
    if array.ndim == dims + 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != dims:
        hint = ""
        if array.ndim == dims + 1:
            hint = f" of one of the {array.shape[0]} examples, such as scores[0]"
        raise ValueError(
            f"scores has shape {tuple(array.shape)}; expected {shape}{hint}."
        )
    return array


def as_array(scores: object) -> Array:
    """Numbers in a tensor, an array or nested sequences of them, as float64."""
    plain = _plain(scores)
    try:
        return np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"scores is a {type(scores).__name__} that does not hold real numbers in "
            f"rows of equal length ({error})."
        ) from error


def _plain(value: object) -> Any:
    if isinstance(value, Tensor):
        if value.is_complex():
            raise TypeError(f"scores is {value.dtype}; expected real numbers.")
        # Not every device has float64.
        return value.detach().cpu().to(float64).numpy()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value


def checked_tokens(name: str, tokens: Sequence[str], n: int) -> list[str]:
    """The tokens of an axis that has ``n`` scores; padding may follow the tokens."""
    if isinstance(tokens, str):
        raise TypeError(
            f"{name} is the string {tokens!r:.80}; expected a list of tokens, such as "
            "list(text) for letters."
        )
    found = list(tokens)
    for i, token in enumerate(found):
        if not isinstance(token, str):
            raise TypeError(
                f"{name}[{i}] is {token!r:.80}, a {type(token).__name__}; expected a "
                "string. tokenizer.convert_ids_to_tokens makes strings of ids."
            )
    if not found:
        raise ValueError(f"{name} is empty; there is nothing to show.")
    if n < len(found):
        raise ValueError(
            f"There are {n} scores for the {len(found)} entries of {name}; expected "
            "one for each (scores of padding may follow)."
        )
    return found


def check_finite(scores: Array, *axes: tuple[str, Sequence[str]]) -> None:
    """Raises a ValueError that says where a score is NaN or infinite."""
    bad = np.argwhere(~np.isfinite(scores))
    if not len(bad):
        return
    place = tuple(int(i) for i in bad[0])
    where = ", ".join(
        f"{axis} {i} ({labels[i]!r})"
        for i, (axis, labels) in zip(place, axes, strict=True)
    )
    others = f", and {len(bad) - 1} more are not finite" if len(bad) > 1 else ""
    raise ValueError(
        f"The score at {where} is {scores[place]}{others}; scores must be finite. "
        "Look at what the model returns, or set what is undefined to 0."
    )
