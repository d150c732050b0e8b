"""Names and numbers of classes as callers hand them in."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any


def whole_number(value: Any) -> int | None:
    """The number if it is a whole one, 1.0 and a tensor of one included, or None."""
    if isinstance(value, (str, bytes)):
        return None
    try:
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, float):
            return int(value) if value.is_integer() else None
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):  # such as several numbers, or None
        return None


def check_labels(
    name: str, labels: Iterable[Any], n_classes: int | None = None
) -> list[int]:
    r"""
    Labels as integers.

    Args:
        name (str): What the caller calls them.
        labels (Iterable): Numbers of classes.
        n_classes (int, optional): How many classes there are; None if that is not
            known.
            Default: None

    Returns:
        *list of int*

    Raises:
        ValueError: If one is not a whole number, or not the number of a class.
    """
    expected = "0 or more" if n_classes is None else f"0 to {n_classes - 1}"
    found = []
    for place, label in enumerate(labels):
        number = whole_number(label)
        if number is None:
            raise ValueError(
                f"{name} holds {label!r:.80} at place {place}; expected the whole "
                f"number of a class, {expected}."
            )
        if number < 0 or (n_classes is not None and number >= n_classes):
            known = "" if n_classes is None else f"the model has {n_classes} classes, "
            raise ValueError(
                f"{name} holds {label!r}; {known}{'so ' if known else ''}expected "
                f"{expected}."
            )
        found.append(number)
    return found


def check_class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of classes as a tuple; a TypeError if they are not a sequence of names."""
    if isinstance(names, str):
        raise TypeError(
            f"class_names is the string {names!r:.80}; expected a name for each class, "
            "such as ('negative', 'positive')."
        )
    found = tuple(names)
    for place, name in enumerate(found):
        if not isinstance(name, str):
            raise TypeError(f"class_names[{place}] is {name!r:.80}; expected a string.")
    if not found:
        raise ValueError("class_names is empty; expected a name for each class.")
    return found


def check_seed(seed: Any) -> int:
    """A seed that every generator takes, or a ValueError."""
    number = None if isinstance(seed, float) else whole_number(seed)
    if number is None or not 0 <= number < 2**64:
        raise ValueError(
            f"seed is {seed!r:.80}; expected a whole number from 0 to 2**64 - 1."
        )
    return number
