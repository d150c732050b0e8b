r"""Metrics that compare the scores of many texts."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from captum_attngrad.metrics.base import Corpus, ExplainedBatch, Metric
from captum_attngrad.metrics.functional.vectors import check_vector, score_vectors


class CorpusMetric(Metric):
    r"""
    A metric that compares the scores of many texts, without running the model.

    Each text becomes one vector (:meth:`vectors`). The metric compares the vectors of
    texts that are explained for the same class with those of other classes
    (:meth:`compute`). Metrics with the same ``vector`` share the vectors.

    Args:
        vector (str): "embedding" for the score-weighted mean of the token embeddings,
            "bag" for a bag of tokens
            (:func:`~captum_attngrad.metrics.functional.score_vectors`).
            Default: "embedding"
        relative (bool): Whether the value of uniform scores is subtracted, so that a
            method gets credit only for what it adds.
            Default: False
    """

    property = "consistency"
    measures_vectors = True

    def __init__(self, vector: str = "embedding", relative: bool = False) -> None:
        check_vector(vector)
        self.vector = vector
        self.relative = self.needs_uniform = relative
        if vector == "bag":
            self.name = f"{self.name}_bag"
        if relative:
            low, high = self.value_range
            self.name = f"{self.name}_gain"
            self.value_range = (low - high, high - low)
            self.best_value = self.value_range[self.higher_is_better]
            self.description = f"{self.description}, minus that of uniform scores"

    def key(self) -> str:
        return f"{self.vector} vectors"

    def vectors(
        self,
        attributions: Tensor,
        attributable: Tensor,
        input_ids: Tensor,
        table: Tensor,
    ) -> Tensor:
        """One vector for each text, (batch, dim), from its scores and token ids (batch,
        tokens) and the embedding table (ids, embedding dim)."""
        return score_vectors(attributions, attributable, input_ids, table, self.vector)

    def value(self, vectors: Tensor, uniform: Tensor, classes: Tensor) -> Tensor:
        """The metric, (texts,) or, if not ``per_example``, (); from the vectors of all
        texts (texts, dim), those of uniform scores (all ones), same shape, and the
        explained classes (texts,)."""
        value = self.compute(vectors, classes)
        return value - self.compute(uniform, classes) if self.relative else value

    @abstractmethod
    def compute(self, vectors: Tensor, classes: Tensor) -> Tensor:
        """The metric of one set of vectors, without regard to ``relative``."""

    def measure_batch(self, explained: ExplainedBatch) -> Tensor:
        batch = explained.batch
        table = batch.text_model.embedding.weight.detach()  # type: ignore[operator]
        return self.vectors(
            explained.scores, explained.attributable, batch.texts.input_ids, table
        ).to(torch.float32)

    def measure_corpus(self, corpus: Corpus) -> Tensor:
        uniform = corpus.measured if corpus.uniform is None else corpus.uniform
        return self.value(corpus.measured, uniform, corpus.classes)
