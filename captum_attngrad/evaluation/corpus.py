r"""Metrics of all texts together, and their resampling."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_attngrad.evaluation.bootstrap import mean_of
from captum_attngrad.evaluation.evaluate import reason
from captum_attngrad.evaluation.registry import Method
from captum_attngrad.evaluation.store import Store
from captum_attngrad.metrics.base import CorpusMetric, Metric

# Each is the metric of half of the texts.
N_CORPUS_RESAMPLES = 100

_Array = npt.NDArray[np.float64]


class CorpusValues(NamedTuple):
    """For metrics without values of single texts the metric and its resamples,
    (methods, 1 + resamples); and what could not be measured, by method and metric."""

    replicates: dict[str, _Array]
    notes: dict[tuple[str, str], str]


def _gather(
    store: Store, key: int | None, name: str, n_batches: int, n_texts: int
) -> Tensor | None:
    """The rows of all batches in the caller's order; None if one has none."""
    rows: npt.NDArray[np.float32] | None = None
    for batch in range(n_batches):
        texts = store.get((batch, "texts"))
        part = texts if key is None else store.get((batch, key, "values"))
        if texts is None or part is None or name not in part:
            return None
        if rows is None:
            rows = np.zeros((n_texts, *part[name].shape[1:]), dtype=part[name].dtype)
        rows[texts["places"]] = part[name]
    return None if rows is None else torch.as_tensor(rows)


def corpus_values(
    values: _Array,
    methods: tuple[Method, ...],
    metrics: tuple[Metric, ...],
    store: Store,
    n_batches: int,
    seed: int,
) -> CorpusValues:
    r"""
    Fills in the values of the metrics that look at all texts together.

    Args:
        values (ndarray): Shape (methods, metrics, texts), filled in place where such a
            metric has a value for each text.
        methods (tuple of Method): The methods.
        metrics (tuple of Metric): The metrics; those of other kinds are passed over.
        store (Store): Where the vectors are.
        n_batches (int): Number of batches.
        seed (int): Seed of the resampling.

    Returns:
        *CorpusValues*
    """
    replicates: dict[str, _Array] = {}
    notes: dict[tuple[str, str], str] = {}
    n_texts = values.shape[2]
    chosen = [m for m in metrics if isinstance(m, CorpusMetric)]
    if not chosen:
        return CorpusValues(replicates, notes)
    classes = _gather(store, None, "target", n_batches, n_texts)
    assert classes is not None
    generator = np.random.default_rng(seed)
    # Halves of the texts, drawn without replacement: a text drawn twice would be its
    # own perfect neighbour. Around their mean, halves spread as the whole would.
    samples = [
        torch.as_tensor(generator.permutation(n_texts)[: (n_texts + 1) // 2])
        for _ in range(N_CORPUS_RESAMPLES)
    ]
    for metric in chosen:
        if not metric.per_example:
            replicates[metric.name] = np.full((len(methods), 1 + len(samples)), np.nan)
    uniform: dict[str, Tensor | None] = {
        kind: _gather(store, None, f"uniform/{kind}", n_batches, n_texts)
        for kind in {metric.vector for metric in chosen}
    }
    for i, method in enumerate(methods):
        for kind, of_uniform in uniform.items():
            vectors = _gather(store, i, f"vector/{kind}", n_batches, n_texts)
            if vectors is None or of_uniform is None:
                continue
            for metric in chosen:
                if metric.vector != kind:
                    continue
                try:
                    found = metric.value(vectors, of_uniform, classes)
                    if metric.per_example:
                        values[i, metrics.index(metric)] = found.numpy()
                        continue
                    halves = np.array(
                        [
                            float(metric.value(vectors[s], of_uniform[s], classes[s]))
                            for s in samples
                        ]
                    )
                    centred = halves - mean_of(halves) + float(found)
                    replicates[metric.name][i] = [float(found), *centred]
                except Exception as error:  # such as a package that is missing
                    notes[method.name, metric.name] = reason(error)
    return CorpusValues(replicates, notes)
