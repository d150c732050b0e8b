r"""Explaining texts with many methods and measuring each explanation."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from captum._utils.progress import NullProgress, progress
from torch import Tensor

from captum_attngrad.compare.comparison import Comparison, ExplainedText
from captum_attngrad.compare.registry import Method, resolve_methods
from captum_attngrad.compare.text_model import TextBatch, TextModel
from captum_attngrad.metrics import (
    Comprehensiveness,
    ErasureMetric,
    Sufficiency,
    removal_probabilities,
)

if TYPE_CHECKING:
    from captum._utils.progress import Progress  # not there before captum 0.9

# Small enough that a progress bar moves every few seconds with a slow method.
_TEXTS_PER_BATCH = 10


@dataclass(frozen=True)
class _Batch:
    """A batch with the model's answer and, method by method, the scores."""

    places: list[int]  # where its texts stand in the caller's list
    texts: TextBatch
    target: Tensor
    probability: Tensor
    scores: list[Tensor]


def _progress_bar(show: bool, total: int, description: str) -> "Progress":
    if not show:
        return NullProgress()
    return progress(total=total, desc=description)


def _check_texts(texts: Sequence[str], labels: Sequence[int] | None) -> None:
    if isinstance(texts, str):
        raise TypeError(
            f"texts is the string {texts!r:.80}; expected a list of texts: [text]."
        )
    if len(texts) == 0:
        raise ValueError("texts is empty; expected at least one text.")
    if labels is not None and len(labels) != len(texts):
        raise ValueError(
            f"labels has {len(labels)} entries for {len(texts)} texts; expected one "
            "label for each text, or None."
        )


def _batches(text_model: TextModel, texts: Sequence[str], seed: int) -> list[_Batch]:
    """Texts of like length together, so that there is little padding."""
    lengths = [len(tokens) for tokens in text_model.encode(texts).tokens]
    order = sorted(range(len(texts)), key=lambda place: lengths[place])
    batches = []
    for start in range(0, len(order), _TEXTS_PER_BATCH):
        places = order[start : start + _TEXTS_PER_BATCH]
        seeds = [
            int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
            for place in places
        ]
        batch = text_model.batch([texts[place] for place in places], seeds)
        with torch.no_grad():
            p = text_model.probabilities(batch.input_ids, batch.attention_mask)
        probability, target = p.max(dim=1)
        batches.append(_Batch(places, batch, target, probability, []))
    return batches


def _checked_scores(method: Method, scores: object, texts: TextBatch) -> Tensor:
    expected = tuple(texts.input_ids.shape)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != expected:
        got = (
            f"shape {tuple(scores.shape)}"
            if isinstance(scores, Tensor)
            else type(scores).__name__
        )
        raise ValueError(
            f"The method {method.name!r} returned {got}; expected a tensor of scores "
            f"(batch, tokens), here {expected}."
        )
    scores = scores.detach().masked_fill(~texts.attributable, 0)
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"The method {method.name!r} returned NaN or infinite scores.")
    return scores


def _synchronize(device: torch.device) -> None:
    # Kernels run on after the call that started them has returned.
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _explain(
    text_model: TextModel,
    batches: list[_Batch],
    methods: tuple[Method, ...],
    show_progress: bool,
) -> list[float]:
    """Fills in the scores and returns the seconds that each method took."""
    n_texts = sum(len(batch.places) for batch in batches)
    seconds = []
    warm_up = batches[0].texts.row(0)
    with _progress_bar(show_progress, len(methods) * n_texts, "Explaining") as bar:
        for method in methods:
            # The first call pays for imports and for memory that is then kept.
            method.function(text_model, warm_up, batches[0].target[:1])
            taken = 0.0
            for batch in batches:
                _synchronize(text_model.device)
                start = perf_counter()
                scores = method.function(text_model, batch.texts, batch.target)
                _synchronize(text_model.device)
                taken += perf_counter() - start
                batch.scores.append(_checked_scores(method, scores, batch.texts))
                bar.update(len(batch.places))
            seconds.append(taken)
    return seconds


def _measure(
    text_model: TextModel,
    batch: _Batch,
    metrics: tuple[ErasureMetric, ...],
) -> list[list[Tensor]]:
    """Values (texts,) by method and metric; every distinct variant is run once."""
    wanted = [
        [metric.removed(scores, batch.texts.attributable) for metric in metrics]
        for scores in batch.scores
    ]
    nothing = torch.zeros_like(batch.texts.attributable).unsqueeze(1)
    probabilities = removal_probabilities(
        text_model.probabilities,
        batch.texts.input_ids,
        torch.cat([nothing, *(masks for row in wanted for masks in row)], dim=1),
        batch.target,
        text_model.replacement_id,
        additional_forward_args=(batch.texts.attention_mask,),
    )
    sizes = [1, *(masks.shape[1] for row in wanted for masks in row)]
    p_full, *p_variants = torch.split(probabilities, sizes, dim=1)
    pieces = iter(p_variants)
    return [
        [metric.value(p_full.squeeze(1), next(pieces)) for metric in metrics]
        for _ in batch.scores
    ]


def _explained_texts(
    batches: list[_Batch],
    methods: tuple[Method, ...],
    labels: Sequence[int] | None,
) -> tuple[ExplainedText, ...]:
    found: dict[int, ExplainedText] = {}
    for batch in batches:
        target = batch.target.tolist()
        probability = batch.probability.tolist()
        scores = [values.double().cpu().numpy() for values in batch.scores]
        for row, place in enumerate(batch.places):
            tokens = batch.texts.tokens[row]
            found[place] = ExplainedText(
                tokens=tokens,
                predicted=target[row],
                probability=probability[row],
                label=None if labels is None else int(labels[place]),
                scores={
                    method.name: values[row, : len(tokens)]
                    for method, values in zip(methods, scores, strict=True)
                },
            )
    return tuple(found[place] for place in range(len(found)))


def _settings(
    text_model: TextModel,
    texts: tuple[ExplainedText, ...],
    methods: tuple[Method, ...],
    metrics: tuple[ErasureMetric, ...],
    seed: int,
) -> dict[str, str]:
    settings = {
        "texts": str(len(texts)),
        "explained": "probability of the predicted class",
    }
    if all(text.label is not None for text in texts):
        right = sum(text.predicted == text.label for text in texts)
        settings["predicted correctly"] = f"{right} of {len(texts)}"
    bins = sorted({fraction for metric in metrics for fraction in metric.bins})
    settings["bins"] = ", ".join(f"{fraction:.0%}" for fraction in bins)
    settings["model"] = type(text_model.model).__name__
    settings["device"] = str(text_model.device)
    if text_model.device.type == "cpu":
        settings["threads"] = (
            f"{torch.get_num_threads()} (of {os.cpu_count()} processors)"
        )
    settings["seed"] = str(seed)
    # The root package imports this module, so its version is read only now.
    from captum_attngrad import __version__

    packages = ["captum", "torch", "numpy"]
    if any("sklearn" in method.requires for method in methods):
        packages.append("scikit-learn")
    settings["versions"] = ", ".join(
        [f"captum-attngrad {__version__}", f"Python {platform.python_version()}"]
        + [f"{package} {version(package)}" for package in packages]
    )
    return settings


def compare(
    text_model: TextModel,
    texts: Sequence[str],
    labels: Sequence[int] | None = None,
    methods: "Sequence[str | Method] | None" = None,
    metrics: Sequence[ErasureMetric] | None = None,
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    show_progress: bool = True,
) -> Comparison:
    r"""
    Explains texts with several methods and measures each explanation.

    The predicted class of each text is explained. The texts that the metrics ask for,
    with tokens replaced, are collected over all methods and metrics, and each distinct
    one is run once. The model is put in evaluation mode and restored.

    Args:
        text_model (TextModel): The classifier.
        texts (Sequence of str): The texts.
        labels (Sequence of int, optional): True classes, for the report.
            Default: None
        methods (Sequence of str or Method, optional): Names or methods; None for all
            that are registered.
            Default: None
        metrics (Sequence of ErasureMetric, optional): None for comprehensiveness and
            sufficiency over their default bins.
            Default: None
        seed (int): Seed of the methods that draw at random, and of the bootstrap.
            Default: 0
        settings (Mapping, optional): More lines for the report's list of settings.
            Default: None
        show_progress (bool): Whether progress bars are shown.
            Default: True

    Returns:
        *Comparison*: Scores, values, intervals; prints as a table, writes a page.

    Raises:
        ValueError: If there are no texts, a text has no tokens, a method is unknown or
            returns scores of the wrong shape or NaN.
        TypeError: If ``texts`` is one string.
        ImportError: If a method needs a package that is not installed.

    Examples::

        >>> result = compare(text_model, texts, methods=["attention_gradient", "lime"])
        >>> print(result.table())
        >>> result.to_html("report/index.html")
    """
    _check_texts(texts, labels)
    chosen = resolve_methods(methods)
    measures = tuple(metrics) if metrics is not None else _default_metrics()
    with text_model.evaluation_mode():
        batches = _batches(text_model, texts, seed)
        seconds = _explain(text_model, batches, chosen, show_progress)
        values = np.empty((len(chosen), len(measures), len(texts)))
        with _progress_bar(show_progress, len(texts), "Removing tokens") as bar:
            for batch in batches:
                for i, row in enumerate(_measure(text_model, batch, measures)):
                    for j, value in enumerate(row):
                        values[i, j, batch.places] = value.cpu().numpy()
                bar.update(len(batch.places))
    explained = _explained_texts(batches, chosen, labels)
    return Comparison(
        methods=chosen,
        metrics=measures,
        values=values,
        seconds=np.array(seconds) / len(texts),
        texts=explained,
        class_names=text_model.class_names,
        settings={
            **(settings or {}),
            **_settings(text_model, explained, chosen, measures, seed),
        },
        seed=seed,
    )


def _default_metrics() -> tuple[ErasureMetric, ...]:
    return (Comprehensiveness(), Sufficiency())
