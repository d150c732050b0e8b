"""Run compiled code as plain Python for a while.

torch offers this for the whole process only. Another thread that predicts with a
compiled model meanwhile gets the same numbers, up to rounding, at the speed of the
model as written.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch


class Uncompiled:
    """Counts its users. PyTorch's context manager restores what it found, which is
    wrong where threads do not leave it in the reverse order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._stance = contextlib.ExitStack()

    @property
    def possible(self) -> bool:
        return hasattr(torch.compiler, "set_stance")  # since torch 2.6

    @contextlib.contextmanager
    def needed(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._stance.close()


uncompiled_code = Uncompiled()
