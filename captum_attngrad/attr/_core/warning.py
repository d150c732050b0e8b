"""Warnings that point at the user's code."""

from __future__ import annotations

import inspect
import warnings

# ``log_usage`` of Captum is between the user's code and ours.
_LIBRARIES = ("captum", "captum_attngrad")


def warn(message: str) -> None:
    """Warn at the line that called the library, however deep we are."""
    level = 1
    frame = inspect.currentframe()
    while frame is not None and _is_library(frame.f_globals.get("__name__")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _is_library(module: str | None) -> bool:
    return module is not None and module.split(".")[0] in (*_LIBRARIES, "contextlib")
