"""Models that are trained once, kept in a file, and loaded from then on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from captum_attngrad._cache import check_cache, write_atomically
from captum_attngrad._checksum import check_seal, seal

Model = TypeVar("Model")


def file_name(prefix: str, version: int, settings: Mapping[str, object]) -> str:
    """Name the file after its settings, so that each combination has its own file."""
    key = json.dumps({"format": version, **settings}, sort_keys=True)
    return f"{prefix}_{hashlib.sha256(key.encode()).hexdigest()[:12]}.pt"


def pack(version: int, settings: Mapping[str, object], **content: object) -> bytes:
    """Return the content of a file: ``content``, the settings behind it, a checksum."""
    buffer = io.BytesIO()
    torch.save({"format": version, "settings": dict(settings), **content}, buffer)
    return seal(buffer.getvalue())


def unpack(kept: bytes, version: int, settings: Mapping[str, object]) -> dict[str, Any]:
    """Return the content of a file, which must have been made with ``settings``."""
    check_seal(kept)
    content: dict[str, Any] = torch.load(
        io.BytesIO(kept), map_location="cpu", weights_only=True
    )
    if (content["format"], content["settings"]) != (version, dict(settings)):
        raise ValueError("it was made with other settings")
    return content


@contextlib.contextmanager
def own_torch_state(seed: int) -> Iterator[None]:
    """
    Run with a freshly seeded generator, PyTorch's defaults and one thread, whatever the
    caller has set, and leave the caller's generator and settings as they were.
    """
    dtype = torch.get_default_dtype()
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    # Sums depend on how they are shared out between threads, so a fixed number is part
    # of a fixed result. The tensors are small: more threads hardly make it faster, and
    # much slower on a busy machine.
    torch.set_num_threads(1)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.device("cpu"))
            # Not torch.manual_seed, which would reseed the GPUs' generators as well.
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def load_or_train(
    path: Path,
    load: Callable[[bytes], Model],
    train: Callable[[], bytes],
    retrain: bool,
    seed: int = 0,
) -> Model:
    """
    Return the model that ``path`` keeps; train and keep it first if there is none, it
    cannot be used, or ``retrain`` is True. Both run in :func:`own_torch_state`. Call it
    from the public function: a warning names that function's caller.
    """
    if path.exists() and not retrain:
        try:
            with own_torch_state(seed):
                return load(path.read_bytes())
        except Exception as error:  # damaged content can fail in any way
            warnings.warn(
                f"The kept model {str(path)!r} cannot be used ({type(error).__name__}: "
                f"{error!s:.200}). It is trained again and replaced.",
                stacklevel=3,
            )
    check_cache(path)
    with own_torch_state(seed):
        content = train()
        write_atomically(path, content)
        return load(content)
