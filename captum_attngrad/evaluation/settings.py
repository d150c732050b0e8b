r"""The settings of a run, to compare with those of an earlier run, and to show."""

import hashlib
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from captum_attngrad.evaluation.registry import Method
from captum_attngrad.evaluation.store.arrays import digest
from captum_attngrad.evaluation.store.texts import StoredTexts
from captum_attngrad.metrics import Metric
from captum_attngrad.text import TextModel
from captum_attngrad.text._texts import Text


def _version() -> str:
    # The root package imports this module, so its version is read only now.
    from captum_attngrad import __version__

    return __version__


def _weights_digest(model: torch.nn.Module) -> str:
    """A name for the numbers in a model."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            data = tensor.detach().cpu().contiguous().flatten()
            found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            found.update(data.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _metric_settings(metric: Metric) -> dict[str, str]:
    found = {name: repr(value) for name, value in sorted(vars(metric).items())}
    return {"name": metric.name, "kind": type(metric).__name__, **found}


def run_arguments(
    text_model: TextModel,
    texts: Sequence[Text],
    methods: tuple[Method, ...],
    metrics: tuple[Metric, ...],
    seed: int,
    tokens_per_batch: int,
) -> dict[str, Any]:
    """Everything that the parts of a run depend on, for JSON."""
    return {
        "captum-attngrad": _version(),
        "torch": torch.__version__,
        "device": text_model.device.type,
        "model": {
            "class": type(text_model.model).__name__,
            "weights": _weights_digest(text_model.model),
            "replacement_id": text_model.replacement_id,
            "outputs": type(text_model.outputs).__name__,
        },
        "texts": {"number": len(texts), "digest": digest(texts)},
        "methods": {m.name: m.description for m in methods},
        "order of methods": [m.name for m in methods],
        "metrics": [_metric_settings(m) for m in metrics],
        "seed": seed,
        "tokens_per_batch": tokens_per_batch,
    }


def described_settings(
    text_model: TextModel,
    texts: StoredTexts,
    methods: tuple[Method, ...],
    metrics: tuple[Metric, ...],
    seed: int,
) -> dict[str, str]:
    """The settings as the report lists them."""
    settings = {
        "texts": str(len(texts)),
        "explained": "probability of the predicted class",
    }
    right = [t.predicted == t.label for _, t in texts.by_batch() if t.label is not None]
    if len(right) == len(texts):
        settings["predicted correctly"] = f"{sum(right)} of {len(texts)}"
    bins = sorted({b for m in metrics for b in getattr(m, "bins", ())})
    if bins:
        settings["bins"] = ", ".join(f"{fraction:.0%}" for fraction in bins)
    settings["model"] = type(text_model.model).__name__
    settings["device"] = str(text_model.device)
    if text_model.device.type == "cpu":
        settings["threads"] = (
            f"{torch.get_num_threads()} (of {os.cpu_count()} processors)"
        )
    settings["seed"] = str(seed)
    packages = ["captum", "torch", "numpy"]
    if any("sklearn" in method.requires for method in methods):
        packages.append("scikit-learn")
    settings["versions"] = ", ".join(
        [f"captum-attngrad {_version()}", f"Python {platform.python_version()}"]
        + [f"{package} {version(package)}" for package in packages]
    )
    return settings
