"""Optional packages: importing them, and saying how to install what is missing."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any


def how_to_install(extra: str) -> str:
    """The pip command for an extra, from an index and from a checkout."""
    return (
        f"Run: pip install 'captum-attngrad[{extra}]' (in a checkout of the "
        f"repository: pip install -e '.[{extra}]')."
    )


def missing(what: str, package: str, extra: str) -> ImportError:
    """The error for an optional package that is not installed."""
    return ImportError(
        f"{what} needs {package}, which is not installed. {how_to_install(extra)}"
    )


def require(module: str, what: str, extra: str, package: str | None = None) -> Any:
    r"""
    Imports an optional package.

    Args:
        module (str): Name of the module.
        what (str): What needs it, to start the error message.
        extra (str): The extra of this package that installs it.
        package (str, optional): Name of the package.
            Default: None, the name of the module

    Returns:
        *ModuleType*

    Raises:
        ImportError: If it is not installed.
    """
    if find_spec(module.partition(".")[0]) is None:
        raise missing(what, package or module, extra)
    return import_module(module)
