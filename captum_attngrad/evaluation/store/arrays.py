r"""Arrays as sealed bytes."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_attngrad._checksum import DamagedError, check_seal, seal

Arrays = Mapping[str, npt.NDArray[Any]]


def pack(arrays: Arrays, name: str = "") -> bytes:
    """Arrays as the bytes of an .npz file with a checksum, which covers ``name``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return seal(buffer.getvalue(), name)


def unpack(content: bytes, name: str = "") -> dict[str, npt.NDArray[Any]]:
    """The inverse of :func:`pack`, or a ``DamagedError``; no pickled code is run."""
    check_seal(content, name)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # anything but an archive can fail in any way
        raise DamagedError(f"{type(error).__name__}: {error!s:.200}") from error


def damaged_entries(content: bytes) -> list[str]:
    """The entries of an .npz file that cannot be read, for error messages."""
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
    """JSON as an array of bytes, so that it can be stored with other arrays."""
    return np.frombuffer(json.dumps(value).encode("utf-8"), dtype=np.uint8)


def from_text_array(array: npt.NDArray[np.uint8]) -> Any:
    """The inverse of :func:`text_array`."""
    return json.loads(array.tobytes().decode("utf-8"))


def digest(items: Sequence[Any]) -> str:
    """A short name for a list of texts."""
    joined = json.dumps(list(items), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    return hashlib.sha256(joined).hexdigest()[:16]
