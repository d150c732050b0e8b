r"""Where the finished parts of a comparison are kept, so that a run can go on."""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from captum_attngrad._checksum import DamagedError, check_seal, seal
from captum_attngrad._files import check_folder_writable, write_file
from captum_attngrad._lock import FolderLock, LockedError

Arrays = Mapping[str, npt.NDArray[Any]]
Key = tuple[int | str, ...]

# Raise it when the parts are laid out in another way.
FORMAT = 1
MANIFEST = "arguments.json"


class Store(Protocol):
    """Arrays by key; and parts that could not be read, with the reason, by name."""

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
        """There is nothing to give back."""


class FolderStore:
    r"""
    Keeps each part in a file of its own, written all at once.

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
        """Lets other runs write to the folder; what is in it can still be read."""
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
            # It is made again and replaced.
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


def pack(arrays: Arrays, name: str = "") -> bytes:
    """Arrays as the bytes of an .npz file with a checksum, which covers ``name``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return seal(buffer.getvalue(), name)


def unpack(content: bytes, name: str = "") -> dict[str, npt.NDArray[Any]]:
    """What :func:`pack` packed, or a ``DamagedError``; nothing in it is run."""
    check_seal(content, name)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # what is no archive can fail in any way
        raise DamagedError(f"{type(error).__name__}: {error!s:.200}") from error


def damaged_entries(content: bytes) -> list[str]:
    """What of an .npz file cannot be read, for the message about it."""
    found = []
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            for name in file.files:
                try:
                    file[name]
                except Exception as error:  # damaged content can fail in any way
                    found.append(f"{name!r}: {error!s:.100}")
    except Exception:
        return []
    return found


def text_array(value: Any) -> npt.NDArray[np.uint8]:
    """JSON as an array of bytes, so that it can lie among other arrays."""
    return np.frombuffer(json.dumps(value).encode("utf-8"), dtype=np.uint8)


def from_text_array(array: npt.NDArray[np.uint8]) -> Any:
    """What :func:`text_array` was given."""
    return json.loads(array.tobytes().decode("utf-8"))


def digest(items: Sequence[Any]) -> str:
    """A short name for a list of texts."""
    joined = json.dumps(list(items), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    return hashlib.sha256(joined).hexdigest()[:16]
