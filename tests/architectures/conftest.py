"""Collects what the architecture tests measured, for the documentation's table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architectures.table import Table

_VARIABLE = "CAPTUM_ATTNGRAD_WRITE_ARCHITECTURES"


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """Every comparison is noted here.

    With ``CAPTUM_ATTNGRAD_WRITE_ARCHITECTURES=docs/architectures.md`` the file is
    written at the end of the run, which must be one process (``-p no:xdist``).
    """
    collected = Table()
    yield collected
    path = os.environ.get(_VARIABLE)
    if path:
        if "PYTEST_XDIST_WORKER" in os.environ:
            raise pytest.UsageError(f"{_VARIABLE} needs a run in one process (-n 0).")
        collected.write(Path(path))
