r"""Classes as they are named on the command line and in files."""

import re
from collections.abc import Sequence
from typing import Any

# 1.0 as well as 1: tables with missing labels hold floating-point numbers.
_WHOLE = re.compile(r"0*([0-9]{1,9})(\.0*)?")


def class_index(value: Any, class_names: Sequence[str]) -> int:
    r"""
    The number of a class.

    Args:
        value (Any): Its name, in upper or lower case, or its number. A name wins over
            a number, since names can be numbers, such as stars.
        class_names (Sequence of str): The names.

    Returns:
        *int*

    Raises:
        ValueError: If there is no such class, or several classes have the name; the
            message says what is expected.
    """
    text = str(value).strip()
    same = [i for i, name in enumerate(class_names) if name == text]
    if not same:
        lowered = text.casefold()
        same = [i for i, name in enumerate(class_names) if name.casefold() == lowered]
    if len(same) == 1:
        return same[0]
    if len(same) > 1:
        raise ValueError(
            f"{value!r:.60} is the name of classes {', '.join(map(str, same))}; "
            "expected the number of one"
        )
    number = _WHOLE.fullmatch(text)
    if number and not isinstance(value, bool) and int(number[1]) < len(class_names):
        return int(number[1])
    raise ValueError(
        f"{value!r:.60} is not a class; expected one of: {', '.join(class_names)}, or "
        f"0 to {len(class_names) - 1}"
    )
