r"""A comparison in one file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_attngrad._checksum import DamagedError
from captum_attngrad._files import write_file
from captum_attngrad.evaluation.results import (
    CURVE,
    ExplainedText,
    MethodInfo,
    MetricInfo,
    Results,
)
from captum_attngrad.evaluation.store.arrays import (
    damaged_entries,
    from_text_array,
    pack,
    text_array,
    unpack,
)

# Raise it when the layout of the file changes.
_FORMAT = 2


def save(comparison: Results, path: "str | os.PathLike[str]") -> Path:
    """Writes a comparison into one file."""
    names = [method.name for method in comparison.finished]
    texts = list(comparison.texts)
    about = {
        "format": _FORMAT,
        "methods": [[m.name, m.description] for m in comparison.methods],
        "metrics": [metric.to_dict() for metric in comparison.metrics],
        "class_names": list(comparison.class_names),
        "settings": dict(comparison.settings),
        "diagnostics": dict(comparison.diagnostics),
        "seed": comparison.seed,
        "failures": dict(comparison.failures),
        "notes": [[*key, why] for key, why in comparison.notes.items()],
        "texts": [[list(t.tokens), t.predicted, t.label] for t in texts],
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "about": text_array(about),
        "values": comparison.values,
        "seconds": comparison.seconds,
        "curves": comparison.curves,
        "probabilities": np.array([text.probability for text in texts]),
    }
    arrays |= {f"replicates/{k}": v for k, v in comparison.replicates.items()}
    for i, name in enumerate(names):
        # The scores of all texts, concatenated; the tokens give their lengths.
        arrays[f"scores/{i}"] = np.concatenate([text.scores[name] for text in texts])
    return write_file(path, pack(arrays))


def load(path: "str | os.PathLike[str]") -> dict[str, Any]:
    """The fields of the :class:`Comparison` that a file holds."""
    content = Path(path).read_bytes()
    try:
        arrays = unpack(content)
    except DamagedError as error:
        damaged = damaged_entries(content)
        where = f" (in it, {', '.join(damaged)})" if damaged else ""
        raise _not_a_comparison(path, f"{error}{where}") from error
    about = _entry(path, arrays, "about")
    try:
        about = from_text_array(about)
        found_format = about["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_a_comparison(path, "its entry 'about' is damaged") from error
    if found_format != _FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {found_format!r}, expected {_FORMAT}: it was "
            "saved by another version."
        )
    try:
        for name, expected in _shapes(about).items():
            found = _entry(path, arrays, name).shape
            if found != expected:
                raise _not_a_comparison(
                    path, f"its entry {name!r} has shape {found}, expected {expected}"
                )
        return _fields(about, arrays)
    except KeyError as error:
        raise _not_a_comparison(path, f"it lacks {error}") from error
    except (TypeError, IndexError, AttributeError) as error:
        raise _not_a_comparison(path, f"its entries do not fit: {error}") from error


def _not_a_comparison(path: "str | os.PathLike[str]", why: str) -> ValueError:
    return ValueError(
        f"{str(path)!r} does not hold a comparison: {why}. Expected a file that "
        "Comparison.save wrote; run the comparison again."
    )


def _entry(
    path: "str | os.PathLike[str]", arrays: dict[str, npt.NDArray[Any]], name: str
) -> Any:
    if name not in arrays:
        raise _not_a_comparison(path, f"it lacks the entry {name!r}")
    return arrays[name]


def _shapes(about: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the entries."""
    n_methods, n_texts = len(about["methods"]), len(about["texts"])
    n_tokens = sum(len(tokens) for tokens, *_ in about["texts"])
    n_finished = n_methods - len(about["failures"])
    return {
        "values": (n_methods, len(about["metrics"]), n_texts),
        "seconds": (n_methods,),
        "curves": (n_methods, 1 + len(CURVE), n_texts),
        "probabilities": (n_texts,),
        **{f"scores/{i}": (n_tokens,) for i in range(n_finished)},
    }


def _fields(about: Any, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    methods = tuple(MethodInfo(*fields) for fields in about["methods"])
    finished = [m.name for m in methods if m.name not in about["failures"]]
    ends = np.cumsum([len(tokens) for tokens, _, _ in about["texts"]])[:-1]
    by_method = [np.split(arrays[f"scores/{i}"], ends) for i in range(len(finished))]
    texts = tuple(
        ExplainedText(
            tuple(tokens),
            predicted,
            float(arrays["probabilities"][i]),
            label,
            {name: rows[i] for name, rows in zip(finished, by_method, strict=True)},
        )
        for i, (tokens, predicted, label) in enumerate(about["texts"])
    )
    return {
        "methods": methods,
        "metrics": tuple(MetricInfo.from_dict(m) for m in about["metrics"]),
        "values": arrays["values"],
        "seconds": arrays["seconds"],
        "texts": texts,
        "class_names": tuple(about["class_names"]),
        "settings": about["settings"],
        "diagnostics": about["diagnostics"],
        "seed": about["seed"],
        "replicates": {
            name.removeprefix("replicates/"): array
            for name, array in arrays.items()
            if name.startswith("replicates/")
        },
        "curves": arrays["curves"],
        "failures": about["failures"],
        "notes": {(method, metric): why for method, metric, why in about["notes"]},
    }
