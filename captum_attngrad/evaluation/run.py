r"""Explaining texts with many methods and measuring each explanation."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_attngrad._classes import check_seed
from captum_attngrad.evaluation import settings as settings_module
from captum_attngrad.evaluation._inputs import (
    check_metrics,
    checked_labels,
    checked_texts,
)
from captum_attngrad.evaluation.comparison import Comparison
from captum_attngrad.evaluation.corpus import corpus_values
from captum_attngrad.evaluation.evaluate import (
    CURVE,
    BatchMeasures,
    explain,
    reason,
)
from captum_attngrad.evaluation.info import MethodInfo, MetricInfo
from captum_attngrad.evaluation.metric_names import MetricLike, resolve_metrics
from captum_attngrad.evaluation.parts import explained_part, measured_part, texts_part
from captum_attngrad.evaluation.registry import Method, MethodLike, resolve_methods
from captum_attngrad.evaluation.store import (
    FolderStore,
    MemoryStore,
    Store,
    from_text_array,
)
from captum_attngrad.evaluation.texts import StoredTexts
from captum_attngrad.metrics.base import (
    CostMetric,
    Metric,
    ReexplainMetric,
)
from captum_attngrad.metrics.cost import Cost, PeakMemory
from captum_attngrad.text import TextBatch, TextModel
from captum_attngrad.text._texts import Text
from captum_attngrad.text.text_model import DEFAULT_TOKENS_PER_BATCH

_Array = npt.NDArray[np.float64]


@dataclass
class _Run:
    """What a run is about, and what it has found so far."""

    text_model: TextModel
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    store: Store
    values: _Array  # (methods, metrics, texts)
    curves: npt.NDArray[np.float32]  # (methods, fractions, texts)
    seconds: _Array  # (methods, texts)
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)
    warm: set[str] = field(default_factory=set)
    diagnostics: dict[str, list[float]] = field(default_factory=dict)


def _progress_bar(show: bool, total: int, description: str) -> "tqdm[None]":
    return tqdm(total=total, desc=description, disable=not show)


def _explained(
    run: _Run, number: int, texts: TextBatch, target: Tensor, bar: "tqdm[None]"
) -> dict[str, Tensor]:
    """Scores of the batch by method, kept or made now; failures are noted."""
    scores = {}
    for index, method in enumerate(run.methods):
        if method.name in run.failures:
            continue
        key = (number, index, "scores")
        kept = run.store.get(key)
        if kept is not None:
            scores[method.name] = torch.as_tensor(
                kept["scores"], device=texts.input_ids.device
            )
            bar.update(len(texts))
            continue
        try:
            if method.name not in run.warm:
                # The first call pays for imports and for memory that is then kept.
                method.function(run.text_model, texts.row(0), target[:1])
                run.warm.add(method.name)
            memory = any(isinstance(m, PeakMemory) for m in run.metrics)
            found = explain(run.text_model, method, texts, target, memory)
        except Exception as error:  # reported, and the other methods go on
            run.failures[method.name] = reason(error)
            bar.update(len(texts))
            continue
        run.store.put(key, explained_part(found))
        scores[method.name] = found.scores
        bar.update(len(texts))
    return scores


def _measure(
    run: _Run,
    number: int,
    measures: BatchMeasures,
    scores: dict[str, Tensor],
) -> None:
    """Measures what has not been measured, and keeps it."""
    pending = [
        method
        for index, method in enumerate(run.methods)
        if method.name in scores and run.store.get((number, index, "values")) is None
    ]
    found = measures.measure(pending, scores) if pending else {}
    perturbs = any(isinstance(metric, ReexplainMetric) for metric in run.metrics)
    if perturbs and (pending or run.store.get((number, "diagnostics")) is None):
        diagnostics = measures.diagnostics()
        arrays = {name: values.cpu().numpy() for name, values in diagnostics.items()}
        run.store.put((number, "diagnostics"), arrays)
    names = [method.name for method in run.methods]
    for name, measured in found.items():
        key = (number, names.index(name), "values")
        run.store.put(key, measured_part(measured))


def _collect(run: _Run, number: int, places: list[int], names: set[str]) -> None:
    """Reads a batch's numbers into the tables."""
    for index, method in enumerate(run.methods):
        if method.name not in names:
            continue
        kept = run.store.get((number, index, "values"))
        explained = run.store.get((number, index, "scores"))
        if kept is None or explained is None:
            raise RuntimeError(
                "A part of the comparison vanished while it ran; do not change the "
                "output folder meanwhile, and start the same command again."
            )
        cost = Cost(*explained["cost"].tolist())
        run.seconds[index, places] = cost.seconds
        run.curves[index][:, places] = kept["curve"].T
        for name, why in from_text_array(kept["failures"]).items():
            run.notes.setdefault((method.name, name), why)
        for j, metric in enumerate(run.metrics):
            if isinstance(metric, CostMetric):
                run.values[index, j, places] = metric.value(cost)
            elif f"value/{metric.name}" in kept:
                run.values[index, j, places] = kept[f"value/{metric.name}"]
    for name, values in (run.store.get((number, "diagnostics")) or {}).items():
        run.diagnostics.setdefault(name, []).extend(values.astype(float).tolist())


def _one_batch(
    run: _Run,
    number: int,
    places: list[int],
    texts: TextBatch,
    bar: "tqdm[None]",
) -> None:
    with torch.no_grad():
        p = run.text_model.probabilities(texts.input_ids, *texts.forward_args)
    if not bool(torch.isfinite(p).all()):
        row = int((~torch.isfinite(p)).any(dim=1).nonzero()[0])
        raise ValueError(
            f"The model's probabilities for text {places[row]} are not finite "
            f"({p[row].tolist()}), so there is no class to explain; look at its "
            "weights."
        )
    probability, target = p.max(dim=1)
    scores = _explained(run, number, texts, target, bar)
    measures = BatchMeasures(run.text_model, texts, target, run.metrics)
    if run.store.get((number, "texts")) is None:
        part = texts_part(run.metrics, measures, places, texts, probability, target)
        run.store.put((number, "texts"), part)
    if scores:
        _measure(run, number, measures, scores)
        _collect(run, number, places, set(scores))
    bar.update(len(places) * len(run.methods))


def compare(
    text_model: TextModel,
    texts: Sequence[Text],
    labels: Sequence[int] | None = None,
    methods: Sequence[MethodLike] | None = None,
    metrics: Sequence[MetricLike] | None = None,
    seed: int = 0,
    output: "str | os.PathLike[str] | None" = None,
    settings: Mapping[str, str] | None = None,
    show_progress: bool = True,
    tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
) -> Comparison:
    r"""
    Explains texts with several methods and measures each explanation.

    The predicted class of each text is explained. Texts of like length form batches.
    The variants of a batch that the metrics ask for, with tokens replaced, are
    collected over all methods and metrics, and each distinct one is run once; so is
    what perturbations share. A method that fails is reported with its reason and the
    others go on. The model is put in evaluation mode and restored.

    The same arguments give the same numbers. Another ``tokens_per_batch`` moves scores
    and values by no more than rounding, about 1e-5 of their size in float32, unless two
    scores of a text are that close to each other, so that their order changes.

    Args:
        text_model (TextModel): The classifier.
        texts (Sequence of str or pair): The texts; pairs (first, second) where the text
            model reads them.
        labels (Sequence of int, optional): True classes, for the report.
            Default: None
        methods (Sequence, optional): Names, :class:`Method`, instances of Captum's
            attributions, or functions ``(text_model, batch, target)``; None for those
            that are registered to be compared by default.
            Default: None
        metrics (Sequence of str or Metric, optional): None for
            :func:`default_metrics`, of all properties.
            Default: None
        seed (int): Seed of the methods that draw at random, and of the bootstrap.
            Default: 0
        output (str or os.PathLike, optional): Folder in which every finished part
            (a method on a batch) is kept, so that a run that was stopped goes on where
            it was, and memory holds one batch at a time. The texts' scores are then
            read from there. A method is recognised by its name and description: after
            a change of a function of your own, take another folder. None keeps
            everything in memory.
            Default: None
        settings (Mapping, optional): More lines for the report's list of settings.
            Default: None
        show_progress (bool): Whether a progress bar is shown.
            Default: True
        tokens_per_batch (int): Tokens in a batch of texts, padding counted.
            Default: 512

    Returns:
        *Comparison*: Scores, values, intervals; prints as a table, writes a page.

    Raises:
        ValueError: If there are no texts, a text has no tokens, a label is no class, a
            name is unknown, ``seed`` is out of range, ``output`` holds a run with other
            arguments or another run is writing to it, or a metric needs one predicted
            class and the model has any number of labels.
        TypeError: If ``texts`` is one string or holds something else than texts, a
            method is none, or a metric does not declare what it is.
        RuntimeError: If every method failed.
        ImportError: If a method needs a package that is not installed.

    Examples::

        >>> result = compare(text_model, texts, methods=["attention_gradient", "lime"])
        >>> print(result.table())
        >>> result.to_html("report/index.html")
    """
    texts = checked_texts(texts)
    labels = checked_labels(labels, len(texts), text_model)
    seed = check_seed(seed)
    chosen = resolve_methods(methods)
    measures = resolve_metrics(metrics)
    check_metrics(text_model, measures)
    store: Store = MemoryStore()
    if output is not None:
        store = FolderStore(
            output,
            settings_module.arguments(
                text_model, texts, chosen, measures, seed, tokens_per_batch
            ),
        )
    try:
        result = _run(
            text_model,
            texts,
            labels,
            chosen,
            measures,
            seed,
            store,
            settings or {},
            show_progress,
            tokens_per_batch,
        )
    finally:
        store.close()
    if store.damaged:
        warnings.warn(
            f"Parts of the comparison in {os.fspath(output or '')!r} were damaged and "
            "have been made anew: "
            f"{'; '.join(f'{name} ({why})' for name, why in store.damaged.items())}.",
            stacklevel=2,
        )
    return result


def _run(
    text_model: TextModel,
    texts: list[Text],
    labels: list[int] | None,
    chosen: tuple[Method, ...],
    measures: tuple[Metric, ...],
    seed: int,
    store: Store,
    settings: Mapping[str, str],
    show_progress: bool,
    tokens_per_batch: int,
) -> Comparison:
    """:func:`compare`, with its arguments checked and the place of the parts."""
    run = _Run(
        text_model,
        chosen,
        measures,
        store,
        np.full((len(chosen), len(measures), len(texts)), np.nan),
        np.full((len(chosen), 1 + len(CURVE), len(texts)), np.nan, dtype=np.float32),
        np.full((len(chosen), len(texts)), np.nan),
    )
    seeds = [
        int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
        for place in range(len(texts))
    ]
    total = 2 * len(chosen) * len(texts)
    numbers = np.zeros((len(texts), 2), dtype=np.int64)
    with (
        text_model.evaluation_mode(),
        warnings.catch_warnings(),
        _progress_bar(show_progress, total, "Explaining and measuring") as bar,
    ):
        # Captum says so of inputs that it prepares itself.
        warnings.filterwarnings("ignore", ".*did not already require gradients")
        batches = text_model.batches(texts, seeds, tokens_per_batch)
        number = -1
        for number, (places, batch) in enumerate(batches):
            numbers[places] = [(number, row) for row in range(len(places))]
            _one_batch(run, number, places, batch, bar)
    if len(run.failures) == len(chosen):
        reasons = "; ".join(f"{name}: {why}" for name, why in run.failures.items())
        raise RuntimeError(f"Every method failed. {reasons}")
    for name in run.failures:
        # What it did before it failed would be a mean over some of the texts.
        index = [method.name for method in chosen].index(name)
        for table in (run.values, run.curves, run.seconds):
            table[index] = np.nan
    resampled = corpus_values(run.values, chosen, measures, store, number + 1, seed)
    run.notes |= resampled.notes
    stored = StoredTexts(store, numbers, _names(chosen), set(run.failures), labels)
    return Comparison(
        methods=tuple(MethodInfo.of(method) for method in chosen),
        metrics=tuple(MetricInfo.of(metric) for metric in measures),
        values=run.values,
        replicates=resampled.replicates,
        curves=run.curves,
        seconds=run.seconds.mean(axis=1),
        texts=stored,
        class_names=text_model.class_names,
        settings={
            **settings,
            **settings_module.described(text_model, stored, chosen, measures, seed),
        },
        seed=seed,
        failures=run.failures,
        notes=run.notes,
        diagnostics={
            name: float(np.nanmean(values)) for name, values in run.diagnostics.items()
        },
    )


def _names(methods: tuple[Method, ...]) -> tuple[str, ...]:
    return tuple(method.name for method in methods)
