r"""Metrics that compare the scores before and after a perturbation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_attngrad._classes import check_labels
from captum_attngrad.metrics._parameters import swapped_parameters
from captum_attngrad.metrics.base import (
    Batch,
    Explain,
    ExplainedBatch,
    Metric,
    Perturbation,
)
from captum_attngrad.text.text_model import TextBatch, TextModel


def explain_changed_models(
    batch: Batch, models: Iterable[nn.Module], explain: Explain
) -> Tensor:
    """Scores for changed copies of the model, (batch, copies, tokens)."""
    texts, again = batch.texts, []
    for changed in models:
        with swapped_parameters(batch.text_model.model, changed):
            again.append(explain(texts.input_ids, texts.attention_mask, batch.target))
    return torch.stack(again, dim=1)


class ReexplainMetric(Metric):
    r"""
    A metric that compares the scores with those after a perturbation.

    Args:
        perturbation (Perturbation): What is changed. Metrics with equal perturbations
            share its work.
    """

    has_diagnostics = True

    def __init__(self, perturbation: Perturbation) -> None:
        self.perturbation = perturbation
        self.needs_one_class = perturbation.needs_one_class

    @abstractmethod
    def value(
        self, scores: Tensor, attributable: Tensor, prepared: Any, again: Tensor
    ) -> Tensor:
        """The metric (batch,) from the scores before, (batch, tokens), and after,
        (batch, variants, tokens)."""

    def measure_batch(self, explained: ExplainedBatch) -> Tensor:
        prepared = explained.batch.prepared(self.perturbation)
        again = explained.explain_again(self.perturbation)
        return self.value(explained.scores, explained.attributable, prepared, again)

    def diagnostics(self, batch: Batch) -> Mapping[str, Tensor]:
        found = self.perturbation.diagnostics(batch.prepared(self.perturbation))
        return {f"{self.perturbation.name}: {k}": v for k, v in found.items()}

    def __call__(
        self,
        text_model: TextModel,
        batch: TextBatch,
        target: Tensor,
        explain: Explain,
    ) -> Tensor:
        r"""
        The metric of one batch.

        Args:
            text_model (TextModel): The classifier, in evaluation mode.
            batch (TextBatch): The texts.
            target (Tensor): The explained classes, (batch,).
            explain (Callable): Maps (input_ids, attention_mask, target) to scores
                (batch, tokens).

        Returns:
            *Tensor*: Shape (batch,).
        """
        classes = check_labels("target", target, len(text_model.class_names))
        if len(classes) != len(batch):
            raise ValueError(
                f"target has {len(classes)} entries for {len(batch)} texts; expected "
                "one class for each text."
            )
        target = torch.tensor(classes, device=batch.input_ids.device)
        scores = explain(batch.input_ids, batch.attention_mask, target)
        return self.measure_batch(
            ExplainedBatch(Batch(text_model, batch, target), scores, lambda _: explain)
        )
