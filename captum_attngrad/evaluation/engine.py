r"""The run behind :func:`~captum_attngrad.evaluation.compare`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_attngrad.evaluation.explaining import explain_with_cost, explainer, reason
from captum_attngrad.evaluation.measuring import (
    checked_values,
    diagnostics,
    measure,
    uniform_values,
)
from captum_attngrad.evaluation.registry import Method
from captum_attngrad.evaluation.results import CURVE
from captum_attngrad.evaluation.results.bootstrap import mean_of
from captum_attngrad.evaluation.store.arrays import from_text_array, text_array
from captum_attngrad.evaluation.store.stores import Store
from captum_attngrad.metrics import Batch, Corpus, ExplainedBatch, Metric
from captum_attngrad.metrics.functional import Cost
from captum_attngrad.text import TextBatch, TextModel

# Each is the metric of half of the texts.
N_CORPUS_RESAMPLES = 100

_Array = npt.NDArray[np.float64]


@dataclass
class Run:
    r"""
    A run over all batches: its arguments and its results so far.

    Args:
        text_model (TextModel): The classifier, in evaluation mode.
        methods (tuple of Method): The methods.
        metrics (tuple of Metric): The metrics.
        store (Store): Keeps the finished parts.
        n_texts (int): Number of texts.
        seed (int): Seed of the resampling.

    Attributes:
        values (ndarray): Shape (methods, metrics, texts).
        curves (ndarray): Shape (methods, 1 + fractions, texts).
        seconds (ndarray): Shape (methods, texts).
        replicates (dict): For metrics without values of single texts the metric and its
            resamples, (methods, 1 + resamples), by name.
        failures (dict): Methods that failed, with the reason.
        notes (dict): Why a metric could not be measured, by method and metric.
        diagnostics (dict): Diagnostics of the metrics, a value for each text, by name.
    """

    text_model: TextModel
    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    store: Store
    n_texts: int
    seed: int
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)
    diagnostics: dict[str, list[float]] = field(default_factory=dict)
    replicates: dict[str, _Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_methods, n_texts = len(self.methods), self.n_texts
        self.values: _Array = np.full(
            (n_methods, len(self.metrics), n_texts), np.nan, dtype=np.float64
        )
        self.curves = np.full(
            (n_methods, 1 + len(CURVE), n_texts), np.nan, dtype=np.float32
        )
        self.seconds: _Array = np.full((n_methods, n_texts), np.nan, dtype=np.float64)
        # The batch of each text, and its row there.
        self.rows = np.zeros((n_texts, 2), dtype=np.int64)
        self._n_batches = 0
        self._warm: set[str] = set()

    def execute(
        self, batches: Iterable[tuple[list[int], TextBatch]], show_progress: bool
    ) -> None:
        """Explains and measures all batches, given with the positions of their texts.

        Raises:
            ValueError: If the model's probabilities are not finite.
            RuntimeError: If every method failed.
        """
        with tqdm(
            total=2 * len(self.methods) * self.n_texts,
            desc="Explaining and measuring",
            disable=not show_progress,
        ) as bar:
            for number, (positions, texts) in enumerate(batches):
                self.rows[positions] = [(number, row) for row in range(len(positions))]
                self._n_batches = number + 1
                self._one_batch(number, positions, texts, bar)
        if len(self.failures) == len(self.methods):
            reasons = "; ".join(f"{name}: {why}" for name, why in self.failures.items())
            raise RuntimeError(f"Every method failed. {reasons}")
        for index, method in enumerate(self.methods):
            if method.name in self.failures:
                # Batches before the failure would give means over some of the texts.
                for table in (self.values, self.curves, self.seconds):
                    table[index] = np.nan
        self._measure_corpus()

    def _one_batch(
        self, number: int, positions: list[int], texts: TextBatch, bar: tqdm
    ) -> None:
        with torch.no_grad():
            p = self.text_model.probabilities(texts.input_ids, *texts.forward_args)
        if not bool(torch.isfinite(p).all()):
            row = int((~torch.isfinite(p)).any(dim=1).nonzero()[0])
            raise ValueError(
                f"The model's probabilities for text {positions[row]} are not finite "
                f"({p[row].tolist()}), so there is no class to explain; check its "
                "weights."
            )
        probability, target = p.max(dim=1)
        batch = Batch(self.text_model, texts, target)
        explained = self._explain(number, batch, bar)
        if self.store.get((number, "texts")) is None:
            uniform = uniform_values(batch, self.metrics)
            part = {
                "tokens": text_array(texts.tokens),
                "positions": np.array(positions),
                "target": target.cpu().numpy(),
                "probability": probability.cpu().numpy(),
                **{f"uniform/{k}": v.cpu().numpy() for k, v in uniform.items()},
            }
            self.store.put((number, "texts"), part)
        if explained:
            self._measure(number, batch, explained)
            self._collect(number, positions, set(explained))
        bar.update(len(positions) * len(self.methods))

    def _explain(
        self, number: int, batch: Batch, bar: tqdm
    ) -> dict[str, ExplainedBatch]:
        """The batch's explanations by method, stored or computed now; failures are
        recorded."""
        found = {}
        texts, memory = batch.texts, any(m.needs_peak_memory for m in self.metrics)
        for index, method in enumerate(self.methods):
            if method.name in self.failures:
                continue
            key = (number, index, "scores")
            stored = self.store.get(key)
            if stored is not None:
                scores = torch.as_tensor(stored["scores"], device=batch.target.device)
                cost = Cost(*stored["cost"].tolist())
            else:
                try:
                    if method.name not in self._warm:
                        # The first call pays for imports and for cached memory.
                        method.function(self.text_model, texts.row(0), batch.target[:1])
                        self._warm.add(method.name)
                    scores, cost = explain_with_cost(
                        self.text_model, method, texts, batch.target, memory
                    )
                except Exception as error:  # reported, and the other methods go on
                    self.failures[method.name] = reason(error)
                    bar.update(len(texts))
                    continue
                part = {"scores": scores.cpu().numpy(), "cost": np.array(cost)}
                self.store.put(key, part)
            again = explainer(self.text_model, method, texts)
            found[method.name] = ExplainedBatch(batch, scores, again, cost)
            bar.update(len(texts))
        return found

    def _measure(
        self, number: int, batch: Batch, explained: dict[str, ExplainedBatch]
    ) -> None:
        """Measures what has not been measured, and stores it."""
        pending = {
            method.name: index
            for index, method in enumerate(self.methods)
            if method.name in explained
            and self.store.get((number, index, "values")) is None
        }
        found = measure(self.metrics, {name: explained[name] for name in pending})
        reporting = [metric for metric in self.metrics if metric.has_diagnostics]
        key = (number, "diagnostics")
        if reporting and (pending or self.store.get(key) is None):
            report = diagnostics(batch, reporting)
            self.store.put(key, {k: v.cpu().numpy() for k, v in report.items()})
        for name, measured in found.items():
            assert measured.curve is not None
            part = {f"value/{k}": v.cpu().numpy() for k, v in measured.values.items()}
            part["curve"] = measured.curve.cpu().numpy()
            part["failures"] = text_array(measured.failures)
            self.store.put((number, pending[name], "values"), part)

    def _collect(self, number: int, positions: list[int], names: set[str]) -> None:
        """Reads a batch's numbers into the tables."""
        for index, method in enumerate(self.methods):
            if method.name not in names:
                continue
            measured = self.store.get((number, index, "values"))
            explained = self.store.get((number, index, "scores"))
            if measured is None or explained is None:
                raise RuntimeError(
                    "A part of the comparison vanished while it ran. Leave the output "
                    "folder alone during a run, and start the same command again."
                )
            self.seconds[index, positions] = Cost(*explained["cost"].tolist()).seconds
            self.curves[index][:, positions] = measured["curve"].T
            for name, why in from_text_array(measured["failures"]).items():
                self.notes.setdefault((method.name, name), why)
            for j, metric in enumerate(self.metrics):
                values = measured.get(f"value/{metric.key()}")
                if values is not None and not metric.measures_vectors:
                    self.values[index, j, positions] = values
        for name, values in (self.store.get((number, "diagnostics")) or {}).items():
            self.diagnostics.setdefault(name, []).extend(values.astype(float).tolist())

    def _gather(self, index: int | None, name: str) -> Tensor | None:
        """The rows of all batches in the caller's order; None if a batch lacks them."""
        rows = None
        for number in range(self._n_batches):
            texts = self.store.get((number, "texts"))
            part = texts
            if index is not None:
                part = self.store.get((number, index, "values"))
            if texts is None or part is None or name not in part:
                return None
            if rows is None:
                shape = (self.n_texts, *part[name].shape[1:])
                rows = np.zeros(shape, dtype=part[name].dtype)
            rows[texts["positions"]] = part[name]
        return None if rows is None else torch.as_tensor(rows)

    def _measure_corpus(self) -> None:
        """Lets the metrics turn the measurements of all texts into values."""
        classes = self._gather(None, "target")
        if classes is None:
            return
        generator = np.random.default_rng(self.seed)
        # Halves of the texts, drawn without replacement: a text that is drawn twice
        # would be its own nearest neighbor. Around their mean, halves spread as the
        # whole would.
        halves = [
            torch.as_tensor(
                generator.permutation(self.n_texts)[: (self.n_texts + 1) // 2]
            )
            for _ in range(N_CORPUS_RESAMPLES)
        ]
        for metric in self.metrics:
            if not metric.per_example:
                shape = (len(self.methods), 1 + len(halves))
                self.replicates[metric.name] = np.full(shape, np.nan)
        uniform = {
            key: self._gather(None, f"uniform/{key}")
            for key in {m.key() for m in self.metrics if m.needs_uniform}
        }
        for i, method in enumerate(self.methods):
            if method.name in self.failures:
                continue
            vectors = {
                key: self._gather(i, f"value/{key}")
                for key in {m.key() for m in self.metrics if m.measures_vectors}
            }
            for j, metric in enumerate(self.metrics):
                measured: Tensor | None = torch.tensor(self.values[i, j])
                if metric.measures_vectors:
                    measured = vectors[metric.key()]
                if measured is None:
                    continue
                corpus = Corpus(measured, uniform.get(metric.key()), classes)
                try:
                    self._measure_one_corpus(i, j, corpus, halves)
                except Exception as error:  # such as a package that is missing
                    self.notes[method.name, metric.name] = reason(error)

    def _measure_one_corpus(
        self, i: int, j: int, corpus: Corpus, halves: list[Tensor]
    ) -> None:
        metric = self.metrics[j]
        found = metric.measure_corpus(corpus)
        if metric.per_example:
            self.values[i, j] = checked_values(metric, found, self.n_texts, False)
            return
        self.values[i, j] = np.nan
        of_halves = np.array(
            [float(metric.measure_corpus(corpus.subset(half))) for half in halves]
        )
        centered = of_halves - mean_of(of_halves) + float(found)
        self.replicates[metric.name][i] = [float(found), *centered]
