"""Where downloaded data and trained models are kept, and how they are written."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from pathlib import Path

PathLike = str | os.PathLike[str]

CACHE_VARIABLE = "CAPTUM_ATTNGRAD_CACHE"


def cache_dir() -> Path:
    """Return the cache folder; it is not created.

    The environment variable ``CAPTUM_ATTNGRAD_CACHE`` wins; otherwise it is
    ``captum_attngrad`` in the platform's cache folder.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        parent = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        parent = "~/Library/Caches"
    else:
        parent = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(parent).expanduser() / "captum_attngrad"


def resolve_root(root: PathLike | None, name: str) -> Path:
    """Return ``root`` as a path, or the folder ``name`` of the cache for None."""
    return cache_dir() / name if root is None else Path(root).expanduser()


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that readers see all of it or nothing.

    Missing parent folders are made. Of several processes that write at the same
    time, the last one wins.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # "x" and not tempfile: the file then gets the permissions the user's umask
        # asks for, so that a cache shared by several users stays readable.
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            f"Cannot write {str(path)!r}: {error}. Pass root= with a folder that can "
            f"be written to, or set the environment variable {CACHE_VARIABLE}."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
