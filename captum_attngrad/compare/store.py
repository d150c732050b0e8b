r"""Where the finished parts of a comparison are kept, so that a run can go on."""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from captum_attngrad._cache import write_atomically

Arrays = Mapping[str, npt.NDArray[Any]]
Key = tuple[int | str, ...]

# Raise it when the parts are laid out in another way.
FORMAT = 1
MANIFEST = "arguments.json"


class Store(Protocol):
    """Arrays by key."""

    def get(self, key: Key) -> Arrays | None: ...
    def put(self, key: Key, arrays: Arrays) -> None: ...


class MemoryStore:
    """Keeps the parts in memory, for a run without an output folder."""

    def __init__(self) -> None:
        self._parts: dict[Key, Arrays] = {}

    def get(self, key: Key) -> Arrays | None:
        return self._parts.get(key)

    def put(self, key: Key, arrays: Arrays) -> None:
        self._parts[key] = arrays


class FolderStore:
    r"""
    Keeps each part in a file of its own, written all at once.

    Args:
        folder (str or os.PathLike): The folder; it is made if it is missing.
        arguments (Mapping): What the parts depend on, JSON.

    Raises:
        ValueError: If the folder holds the parts of a run with other arguments; the
            message names them.
        OSError: If the folder cannot be written.
    """

    def __init__(
        self, folder: "str | os.PathLike[str]", arguments: Mapping[str, Any]
    ) -> None:
        self._parts = Path(folder) / "parts"
        manifest = self._parts / MANIFEST
        wanted = json.loads(json.dumps({"format": FORMAT, **arguments}))
        try:
            found = json.loads(manifest.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self._parts.is_dir() and any(self._parts.glob("*.npz")):
                raise ValueError(
                    f"{str(self._parts)!r} holds results but not the arguments they "
                    f"came from ({MANIFEST}). Choose another folder, or remove this "
                    "one."
                ) from None
            write(manifest, json.dumps(wanted, indent=1).encode("utf-8"))
            return
        except ValueError as error:
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
        try:
            return unpack(self._path(key).read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, OSError, KeyError, EOFError, BadZipFile):
            return None  # damaged: it is made again and replaced

    def put(self, key: Key, arrays: Arrays) -> None:
        write(self._path(key), pack(arrays))

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


def pack(arrays: Arrays) -> bytes:
    """Arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """What :func:`pack` packed; nothing in it is run."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write(path: Path, content: bytes) -> None:
    """Writes a file, all of it or nothing."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise OSError(
            f"Cannot write {str(path)!r}: {error.__cause__ or error}"
        ) from error


def text_array(value: Any) -> npt.NDArray[np.uint8]:
    """JSON as an array of bytes, so that it can lie among other arrays."""
    return np.frombuffer(json.dumps(value).encode("utf-8"), dtype=np.uint8)


def from_text_array(array: npt.NDArray[np.uint8]) -> Any:
    """What :func:`text_array` was given."""
    return json.loads(array.tobytes().decode("utf-8"))


def digest(items: Sequence[str]) -> str:
    """A short name for a list of strings."""
    joined = json.dumps(list(items), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    return hashlib.sha256(joined).hexdigest()[:16]
