r"""Stores of the finished parts of a comparison, so that a run can be resumed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from captum_attngrad._checksum import DamagedError
from captum_attngrad._files import check_folder_writable, write_file
from captum_attngrad._lock import FolderLock, LockedError
from captum_attngrad.evaluation.store.arrays import Arrays, pack, unpack

Key = tuple[int | str, ...]

# Raise it when the layout of the parts changes.
FORMAT = 2
MANIFEST = "arguments.json"


class Store(Protocol):
    """Arrays by key, and the parts that could not be read: reason by name."""

    damaged: dict[str, str]

    def get(self, key: Key) -> Arrays | None: ...
    def put(self, key: Key, arrays: Arrays) -> None: ...
    def close(self) -> None: ...


class MemoryStore:
    """Keeps the parts in memory, for a run without an output folder."""

    def __init__(self) -> None:
        self._parts: dict[Key, Arrays] = {}
        self.damaged: dict[str, str] = {}

    def get(self, key: Key) -> Arrays | None:
        return self._parts.get(key)

    def put(self, key: Key, arrays: Arrays) -> None:
        self._parts[key] = arrays

    def close(self) -> None:
        """Nothing to do."""


class FolderStore:
    r"""
    Keeps each part in its own file, written in one step.

    Args:
        folder (str or os.PathLike): The folder; it is made if it is missing.
        arguments (Mapping): What the parts depend on, JSON.

    Raises:
        ValueError: If the folder holds the parts of a run with other arguments; the
            message names them.
            So it does if another run is writing to the folder.
        OSError: If the folder cannot be written.
    """

    def __init__(
        self, folder: "str | os.PathLike[str]", arguments: Mapping[str, Any]
    ) -> None:
        self._parts = Path(folder) / "parts"
        self.damaged: dict[str, str] = {}
        check_folder_writable(self._parts)
        self._parts.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self._parts)
        except LockedError as error:
            raise ValueError(
                f"Another run is writing to {str(folder)!r} ({error}). Wait until it "
                "has ended, or choose another folder."
            ) from error
        try:
            self._check_arguments(folder, arguments)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets other runs write to the folder; its parts can still be read."""
        self._lock.release()

    def _check_arguments(
        self, folder: "str | os.PathLike[str]", arguments: Mapping[str, Any]
    ) -> None:
        manifest = self._parts / MANIFEST
        wanted = json.loads(json.dumps({"format": FORMAT, **arguments}))
        try:
            found = json.loads(manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if any(self._parts.glob("*.npz")):
                raise ValueError(
                    f"{str(self._parts)!r} holds results but not the arguments they "
                    f"came from ({MANIFEST}). Choose another folder, or remove this "
                    "one."
                ) from None
            write_file(manifest, json.dumps(wanted, indent=1).encode("utf-8"))
            return
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{str(manifest)!r} is damaged ({error}). Choose another folder, or "
                "remove this one."
            ) from error
        differences = _differences(found, wanted)
        if differences:
            raise ValueError(
                f"{str(folder)!r} holds a comparison with other arguments: "
                f"{'; '.join(differences)}. Choose another folder, or remove this one."
            )

    def get(self, key: Key) -> Arrays | None:
        path = self._path(key)
        try:
            return unpack(path.read_bytes(), path.name)
        except FileNotFoundError:
            return None
        except (DamagedError, OSError) as error:
            # It is computed again and replaced.
            self.damaged[path.name] = str(error)
            return None

    def put(self, key: Key, arrays: Arrays) -> None:
        path = self._path(key)
        write_file(path, pack(arrays, path.name))

    def _path(self, key: Key) -> Path:
        parts = (f"{k:05d}" if isinstance(k, int) else k for k in key)
        return self._parts / f"{'-'.join(parts)}.npz"


def _differences(found: Any, wanted: Mapping[str, Any]) -> list[str]:
    if not isinstance(found, dict):
        return ["its list of arguments is damaged"]
    return [
        f"{name} {_briefly(found.get(name))} there, {_briefly(wanted.get(name))} now"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]


def _briefly(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."
