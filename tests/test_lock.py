"""A folder is locked by one user at a time, until its process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from captum_attngrad._lock import FolderLock, LockedError

_HOLD = """
import sys
from pathlib import Path
from captum_attngrad._lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_one_at_a_time_in_a_process(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(LockedError, match=str(os.getpid())):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    FolderLock(tmp_path).release()


def test_a_killed_process_gives_the_lock_back(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.readline().strip() == b"held"
        with pytest.raises(LockedError, match=f"process {process.pid}"):
            FolderLock(tmp_path)
        process.kill()
        process.wait(timeout=60)
    FolderLock(tmp_path).release()
