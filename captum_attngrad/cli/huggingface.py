r"""Loading a Hugging Face model and its tokenizer from a folder.

Broken files can fail in any way inside transformers, or not at all: missing weights
become random numbers, and a missing vocabulary has no words.
"""

import json
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging

from captum_attngrad.evaluation.explaining import reason


class LoadingError(Exception):
    """A part of the folder cannot be used; the message says which, and why."""


def load_folder(folder: Path) -> tuple[Any, Any]:
    r"""
    The model, in evaluation mode, and the tokenizer of a folder.

    Args:
        folder (Path): The folder.

    Returns:
        *tuple*: Model and tokenizer.

    Raises:
        LoadingError: If the folder does not hold a whole sequence classifier.
    """
    _check_config(folder)
    with _quiet():
        tokenizer = _tokenizer(folder)
        model, unused = _model(folder, AutoModelForSequenceClassification)
    _warn_of_unused(unused, folder)
    return model.eval(), tokenizer


def load_language_model(folder: Path, gguf: str | None = None) -> tuple[Any, Any]:
    r"""
    The language model, in evaluation mode, and the tokenizer of a folder.

    Args:
        folder (Path): The folder.
        gguf (str, optional): The name of a GGUF file in it that holds both.
            Default: None

    Returns:
        *tuple*: Model and tokenizer.

    Raises:
        LoadingError: If the folder does not hold a whole language model.
    """
    if gguf is None:
        _check_config(folder, "ForCausalLM", "LMHeadModel")
    elif not (folder / gguf).is_file():
        raise LoadingError(f"it has no file {gguf!r}")
    options = {} if gguf is None else {"gguf_file": gguf}
    dtype = {} if gguf is None else {"dtype": torch.float32}
    with _quiet():
        tokenizer = _tokenizer(folder, **options)
        model, unused = _model(folder, AutoModelForCausalLM, **options, **dtype)
    _warn_of_unused(unused, folder)
    return model.eval(), tokenizer


def _warn_of_unused(unused: list[str], folder: Path) -> None:
    if unused:
        warnings.warn(
            f"the model of config.json does not use {len(unused)} of the weights in "
            f"{str(folder)!r}, such as {min(unused)}",
            stacklevel=3,
        )


def _check_config(folder: Path, *kinds: str) -> None:
    kinds = kinds or ("ForSequenceClassification",)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadingError(f"config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise LoadingError(
            f"config.json holds a {type(config).__name__}; expected an object with the "
            "model's settings"
        )
    architectures = config.get("architectures")
    if not architectures:
        return
    if not isinstance(architectures, list) or not isinstance(architectures[0], str):
        raise LoadingError(
            f"config.json names the architectures {architectures!r:.60}; expected a "
            "list of names"
        )
    if not any(kind in architectures[0] for kind in kinds):
        # Loaded as one, it would get a head of random weights.
        what = "sequence classifier" if len(kinds) == 1 else "language model"
        raise LoadingError(f"it is a {architectures[0]}, not a {what}")


def _tokenizer(folder: Path, **options: Any) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, **options
        )
    except Exception as error:  # damaged files can fail in any way
        raise LoadingError(f"its tokenizer {_damaged(error)}") from error
    names = sorted(set(getattr(tokenizer, "vocab_files_names", {}).values()))
    if not options and names and not any((folder / name).is_file() for name in names):
        raise LoadingError(
            f"its tokenizer's files are missing; expected {' or '.join(names)}"
        )
    return tokenizer


def _model(folder: Path, kind: Any, **options: Any) -> tuple[Any, list[str]]:
    """The model, and the weights in the folder that it does not use."""
    try:
        model, info = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **options
        )
    except pickle.UnpicklingError as error:
        raise LoadingError(
            "its weights are a damaged file, or a pickle of more than numbers, which "
            "could run code; save the model again, as safetensors"
        ) from error
    except Exception as error:  # damaged files can fail in any way
        if "ignore_mismatched_sizes" in str(error):
            raise LoadingError(
                "its weights have other sizes than config.json says"
            ) from error
        raise LoadingError(f"its weights {_damaged(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise LoadingError(
            f"its weights lack {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}, which "
            "would be random numbers"
        )
    # Buffers that earlier versions saved, which are made anew.
    return model, [n for n in info["unexpected_keys"] if not n.endswith("position_ids")]


def _damaged(error: Exception) -> str:
    return f"cannot be read: damaged, or of another kind ({reason(error)})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what transformers logs about files; what matters is raised."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
