"""A lock on a folder that ends with the process that holds it, however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NAME = ".lock"


class LockedError(Exception):
    """Somebody else holds the lock; the message says who, as far as it is known."""


class FolderLock:
    r"""
    Keeps other processes, and other users in this one, from taking the same lock.

    The operating system holds it for an open file, so that nothing has to be cleaned up
    after a process that was killed. The file stays behind; its content means nothing.

    Args:
        folder (Path): The folder, which has to exist.

    Raises:
        LockedError: If the lock is held.
        OSError: If the file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = os.open(
            folder / _NAME, os.O_RDWR | os.O_CREAT, 0o666
        )
        try:
            _lock(self._descriptor)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 20, 0) if _POSIX else b""
            self.release()
            raise LockedError(
                f"process {holder.decode('ascii', 'replace')}"
                if holder
                else "its process is not known"
            ) from None
        except OSError:
            # Some network file systems have no locks. Two runs at once are then not
            # noticed, but one run works.
            return
        if _POSIX:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode("ascii"), 0)

    def release(self) -> None:
        """Gives the lock back; more than once does no harm."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()


_POSIX = sys.platform != "win32"

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        # Of the open file and not of the process, as lockf's would be: closing the file
        # elsewhere does not give it back, and threads exclude each other too.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
