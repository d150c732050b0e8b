r"""Comparing explanation methods on texts."""

import os
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from captum_attngrad._classes import check_seed
from captum_attngrad.evaluation._inputs import (
    check_metrics,
    checked_labels,
    checked_texts,
)
from captum_attngrad.evaluation.comparison import Comparison
from captum_attngrad.evaluation.engine import Run
from captum_attngrad.evaluation.metric_names import MetricLike, resolve_metrics
from captum_attngrad.evaluation.registry import MethodLike, resolve_methods
from captum_attngrad.evaluation.results import MethodInfo, MetricInfo
from captum_attngrad.evaluation.settings import described_settings, run_arguments
from captum_attngrad.evaluation.store.stores import FolderStore, MemoryStore, Store
from captum_attngrad.evaluation.store.texts import StoredTexts
from captum_attngrad.text import TextModel
from captum_attngrad.text._texts import Text
from captum_attngrad.text.text_model import DEFAULT_TOKENS_PER_BATCH


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

    The predicted class of each text is explained. Texts of similar length form
    batches. The masked variants of a batch that the metrics need are collected over all
    methods and metrics, and each distinct one is run once; perturbations that metrics
    share run once, too. A method that fails is reported with its reason, and the others
    go on. The model is put in evaluation mode and restored.

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
        output (str or os.PathLike, optional): Folder for every finished part (a method
            on a batch), so that a run that was stopped can be resumed, and memory holds
            one batch at a time. The texts' scores are then read from there. A method is
            recognized by its name and description: after changing a function of your
            own, choose another folder. None keeps everything in memory.
            Default: None
        settings (Mapping, optional): More lines for the report's list of settings.
            Default: None
        show_progress (bool): Whether a progress bar is shown.
            Default: True
        tokens_per_batch (int): Tokens in a batch of texts, padding counted.
            Default: 512

    Returns:
        *Comparison*: Scores, values, intervals; prints as a table and writes a page.

    Raises:
        ValueError: If there are no texts, a text has no tokens, a label is not a
            class, a name is unknown, ``seed`` is out of range, ``output`` holds a run
            with other arguments or another run is writing to it, or a metric needs one
            predicted class and the model has any number of labels.
        TypeError: If ``texts`` is one string or holds anything but texts, an entry
            of ``methods`` is not a method, or a metric does not declare what it is.
        RuntimeError: If every method failed.
        ImportError: If a method needs a package that is not installed.

    Examples::

        >>> result = compare(text_model, texts, methods=["attention_gradient", "lime"])
        >>> print(result)
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
            run_arguments(text_model, texts, chosen, measures, seed, tokens_per_batch),
        )
    run = Run(text_model, chosen, measures, store, len(texts), seed)
    seeds = [
        int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        for i in range(len(texts))
    ]
    try:
        with text_model.evaluation_mode(), warnings.catch_warnings():
            # Captum warns of inputs that it prepares itself.
            warnings.filterwarnings("ignore", ".*did not already require gradients")
            batches = text_model.batches(texts, seeds, tokens_per_batch)
            run.execute(batches, show_progress)
        result = _comparison(run, labels, settings or {})
    finally:
        store.close()
    if store.damaged:
        warnings.warn(
            f"Parts of the comparison in {os.fspath(output or '')!r} were damaged and "
            "have been computed again: "
            f"{'; '.join(f'{name} ({why})' for name, why in store.damaged.items())}.",
            stacklevel=2,
        )
    return result


def _comparison(
    run: Run, labels: list[int] | None, settings: Mapping[str, str]
) -> Comparison:
    names = tuple(method.name for method in run.methods)
    texts = StoredTexts(run.store, run.rows, names, set(run.failures), labels)
    described = described_settings(
        run.text_model, texts, run.methods, run.metrics, run.seed
    )
    return Comparison(
        methods=tuple(MethodInfo(m.name, m.description) for m in run.methods),
        metrics=tuple(MetricInfo.of(metric) for metric in run.metrics),
        values=run.values,
        replicates=run.replicates,
        curves=run.curves,
        seconds=run.seconds.mean(axis=1),
        texts=texts,
        class_names=run.text_model.class_names,
        settings={**settings, **described},
        seed=run.seed,
        failures=run.failures,
        notes=run.notes,
        diagnostics={
            name: float(np.nanmean(values)) for name, values in run.diagnostics.items()
        },
    )
