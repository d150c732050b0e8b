"""Names that the README or a tutorial once imported from the root of the package."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_HOMES = {
    "datasets": ("MovieReviewSnippets", "PronouncingDictionary"),
    "evaluation": ("available_methods", "available_metrics", "captum_method"),
    "metrics": ("ErasureMetric",),
    "models": ("AttentionLSTMClassifier", "trained_g2p", "trained_lstm"),
    "text": ("build_vocab_from_iterator", "import_torchtext", "pad_batch"),
}
MOVED = {name: home for home, names in _HOMES.items() for name in names}


def moved(name: str) -> Any:
    """
    A name that has moved, with a warning that says where.

    Raises:
        AttributeError: if there never was such a name.
    """
    if name not in MOVED:
        raise AttributeError(f"module 'captum_attngrad' has no attribute {name!r}")
    home = f"captum_attngrad.{MOVED[name]}"
    warnings.warn(
        f"captum_attngrad.{name} has moved and will be gone from here in version 0.2. "
        f"Import it with: from {home} import {name}",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(importlib.import_module(home), name)
