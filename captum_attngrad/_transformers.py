"""All that is used of the inside of transformers."""

from __future__ import annotations

import sys
from typing import Any

MODULE = "transformers.modeling_utils"
REGISTRY = "ALL_ATTENTION_FUNCTIONS"
# How models call the functions of the registry.
REGISTRY_ARGUMENTS = ("module", "query", "key", "value", "attention_mask")


def attention_registry() -> Any:
    """The registry of attention functions; None where nobody has imported transformers,
    or a version without a registry (before 4.48)."""
    registry = getattr(sys.modules.get(MODULE), REGISTRY, None)
    return registry if hasattr(registry, "register") else None
