from __future__ import annotations

from pathlib import Path

import pytest

from captum_attngrad.datasets import MovieReviewSnippets


@pytest.fixture(scope="session")
def reviews_root() -> Path:
    """The folder with the real data; all tests share the cache's copy of it."""
    return MovieReviewSnippets().root
