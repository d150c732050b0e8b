"""What `make test-fast` leaves out."""

from __future__ import annotations

import pytest

from tests.conftest import HERE, SLOW


@pytest.mark.parametrize("name", SLOW)
def test_what_is_listed_as_slow_is_there(name: str) -> None:
    assert (HERE / name).exists()
