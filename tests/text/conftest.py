from __future__ import annotations

from types import ModuleType

import pytest

from captum_attngrad.text import import_torchtext


@pytest.fixture(scope="session")
def torchtext() -> ModuleType:
    try:
        package = import_torchtext()
    except ImportError as error:
        pytest.skip(f"{error!s:.75} ... (make test-torchtext)")
    package.disable_torchtext_deprecation_warning()
    return package
