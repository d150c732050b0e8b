"""Writing files: all of a file or nothing, and never over what is not a file."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path

# Names for what is neither a file nor a folder; a rename would put a file in its place.
_KINDS = (
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)
# Names of open files, which a rename would not reach.
_OPEN_FILES = ("/dev/fd/", "/dev/std", "/proc/")
# As many symbolic links as Linux follows.
_MAX_LINKS = 40


def resolve_target(path: str | os.PathLike[str]) -> Path:
    r"""
    Where a file that is written to ``path`` ends up: symbolic links are followed.

    Args:
        path (str or os.PathLike): The file to write; it need not exist.

    Returns:
        *Path*: The file itself.

    Raises:
        OSError: If something other than a regular file is there, a symbolic link leads
            nowhere but to itself, or the path cannot be one. The message says which.
    """
    shown = os.fspath(path)
    _check_no_nul(shown)
    target = Path(path)
    try:
        for _ in range(_MAX_LINKS):
            if os.path.abspath(target).startswith(_OPEN_FILES):
                raise OSError(f"{shown!r} is an open file of a process")
            if not target.is_symlink():
                break
            target = target.parent / os.readlink(target)
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except ValueError as error:  # such as half a surrogate pair
        raise OSError(f"{shown!r}: {error}") from error
    except OSError as error:
        if error.strerror is None:  # ours
            raise
        raise OSError(f"{shown!r}: {reason(error)}") from error
    if stat.S_ISREG(mode):
        if not os.access(target, os.W_OK):
            raise OSError(f"{shown!r} is write-protected")
        return target
    if stat.S_ISDIR(mode):
        raise OSError(f"{shown!r} is a folder; expected a file")
    kind = next((name for test, name in _KINDS if test(mode)), "not a regular file")
    raise OSError(f"{shown!r} is {kind}; expected a file")


def write_file(path: str | os.PathLike[str], content: bytes) -> Path:
    r"""
    Writes a file so that readers see all of it or nothing.

    Missing parent folders are made. A file that is there is replaced and keeps its
    permissions; a symbolic link is followed. Of several processes that write at the
    same time, the last one wins.

    Args:
        path (str or os.PathLike): The file.
        content (bytes): What it is to hold.

    Returns:
        *Path*: ``path``.

    Raises:
        OSError: If it cannot be written, or something other than a regular file is
            there; nothing is left behind then.
    """
    try:
        _replace(resolve_target(path), content)
    except OSError as error:
        raise OSError(f"Cannot write {os.fspath(path)!r}: {reason(error)}") from error
    return Path(path)


def _replace(target: Path, content: bytes) -> None:
    # A name of its own, so that a long name does not become too long.
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x" and not tempfile: the file then gets the permissions the user's umask
        # asks for, so that a cache shared by several users stays readable.
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    r"""
    Raises an OSError if :func:`write_file` could not write to ``path``. Nothing is left
    behind: neither a file nor a folder.
    """
    check_folder_writable(resolve_target(path).parent)


def check_folder_writable(folder: str | os.PathLike[str]) -> None:
    """Raises an OSError if no file can be made in a folder, which need not exist."""
    _check_no_nul(os.fspath(folder))
    existing = Path(os.path.realpath(folder))
    missing = 0
    while not os.path.lexists(existing) and existing != existing.parent:
        if len(os.fsencode(existing.name)) > 255:
            raise OSError(f"the name {existing.name!r} is too long")
        existing, missing = existing.parent, missing + 1
    if not existing.is_dir():
        raise NotADirectoryError(f"{str(existing)!r} is a file, not a folder")
    # Permissions alone do not tell: some file systems let nobody make files.
    probe = existing / f".{uuid.uuid4().hex}.tmp"
    try:
        if missing:
            probe.mkdir()
            probe.rmdir()
        else:
            probe.touch(exist_ok=False)
            probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to {str(existing)!r}: {reason(error)}") from error


def _check_no_nul(path: str) -> None:
    if "\0" in path:
        raise OSError(f"{path!r} holds a NUL character, which no path can")


def reason(error: OSError) -> str:
    """What went wrong, without the number of the error."""
    return error.strerror or str(error)
