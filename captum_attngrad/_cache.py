"""Where downloaded data and trained models are kept, and how they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from captum_attngrad._extras import require
from captum_attngrad._files import check_writable, reason, write_file

PathLike = str | os.PathLike[str]

CACHE_VARIABLE = "CAPTUM_ATTNGRAD_CACHE"


def cache_dir() -> Path:
    """Return the cache folder; it is not created.

    It is the value of the environment variable ``CAPTUM_ATTNGRAD_CACHE``, or else
    ``captum_attngrad`` in the platform's cache folder, which needs platformdirs.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    platformdirs = require(
        "platformdirs", "The cache folder of data and models", "datasets"
    )
    folder = platformdirs.user_cache_path("captum_attngrad", False, opinion=False)
    return Path(folder).expanduser()


def resolve_root(root: PathLike | None, name: str) -> Path:
    """Return ``root`` as a path, or the folder ``name`` of the cache for None."""
    return cache_dir() / name if root is None else Path(root).expanduser()


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` in the cache so that readers see all of it or
    nothing; see :func:`~captum_attngrad._files.write_file`."""
    with _what_to_do():
        write_file(path, content)


def check_cache(path: Path) -> None:
    """Raise an OSError if :func:`write_atomically` could not write to ``path``, before
    the work whose result it is to keep."""
    with _what_to_do():
        check_writable(path)


@contextmanager
def _what_to_do() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{reason(error)}. Pass root= with a folder that can be written to, or set "
            f"the environment variable {CACHE_VARIABLE}."
        ) from error
