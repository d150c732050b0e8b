"""Options that are whole numbers."""

from __future__ import annotations

import operator
from typing import Any


def whole_number(name: str, value: Any, least: int, purpose: str = "") -> int:
    """``value`` as an int.

    Raises:
        ValueError: if it is not a whole number of at least ``least``. A bool is not
            accepted: ``True`` for a number is a mistake.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise ValueError(
            f"{name}={value!r:.80}: expected a whole number of at least {least}"
            f"{purpose and ' ' + purpose}."
        )
    return number


def checked_batch_size(internal_batch_size: Any) -> int | None:
    """``internal_batch_size`` of an attribution: None, or 1 and more.

    Raises:
        ValueError: if it is anything else.
    """
    if internal_batch_size is None:
        return None
    return whole_number(
        "internal_batch_size", internal_batch_size, 1, "(or None, for no limit)"
    )
