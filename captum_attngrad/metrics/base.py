r"""
What every metric declares about itself, and how it is computed.

A harness such as :func:`~captum_attngrad.evaluation.compare` computes any metric, also
one of a kind that it has never seen, in these steps:

1. It explains a batch of texts with a method.
2. It collects the :meth:`~Metric.masks` of all metrics and methods and runs the model
   once on each distinct masked text.
3. It calls :meth:`~Metric.measure_batch` with an :class:`ExplainedBatch`: the scores,
   the model's answers on the masked texts, the cost, and a way to explain the batch
   again. Whatever several metrics need from there is computed once.
4. After the last batch it calls :meth:`~Metric.measure_corpus` with the measurements of
   all texts.

Most metrics override step 2 or 3 through one of these classes:

=========================  ============================================================
:class:`ErasureMetric`     masks tokens and reads the model's answers.
:class:`ReexplainMetric`   compares the scores with those after a
                           :class:`Perturbation` of the texts or the model.
:class:`CorpusMetric`      compares the scores of all texts with each other.
:class:`CostMetric`        reads the :class:`~captum_attngrad.metrics.functional.Cost`.
=========================  ============================================================

NaN means that a metric is undefined for an example; :attr:`Metric.undefined` says when
that happens. Means over examples leave NaN out and say how many values were left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_attngrad.metrics.functional.cost import Cost
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.text.text_model import TextBatch, TextModel

#: Maps (input_ids, attention_mask, target) to scores (batch, tokens). It is always
#: called with one variant of each text of the batch, in the batch's order and length,
#: and must explain the model as it is *at that moment*. A method that draws at random
#: must draw anew in each call (from the texts' seeds and the number of the call), or
#: perturbations would seem not to affect it.
Explain = Callable[[Tensor, Tensor, Tensor], Tensor]


class Perturbation(ABC):
    r"""
    A change of the texts or of the model after which the texts are explained again.
    The model must be in evaluation mode.

    Subclasses are frozen dataclasses: instances with the same settings are equal, so
    that metrics with equal perturbations share their work.

    Attributes:
        name (str): Short name, the first part of the names of metrics that use it.
        needs_one_class (bool): As :attr:`Metric.needs_one_class`.
        description (str): What is changed, in a few words.
        paper (str): Where it comes from.
    """

    needs_one_class = False
    name: str
    description: str = ""
    paper: str = ""

    @abstractmethod
    def prepare(self, batch: Batch) -> Any:
        """The part that does not depend on the method: attacked texts, changed models.
        It is used for this batch only."""

    @abstractmethod
    def explain_again(self, batch: Batch, prepared: Any, explain: Explain) -> Tensor:
        """Scores after the perturbation, (batch, variants, tokens)."""

    def affected(self, prepared: Any) -> Tensor | None:
        """The texts whose perturbed scores metrics use, boolean (batch,); None for all.
        The others, such as texts that an attack failed to change, are not explained
        again."""
        return None

    def valid(self, prepared: Any) -> Tensor | None:
        """The variants that count, boolean (batch, variants); None for all."""
        return None

    def diagnostics(self, prepared: Any) -> Mapping[str, Tensor]:
        """What must be reported next to the metrics, each (batch,), such as whether an
        attack succeeded. It does not depend on the method."""
        return {}


def _once(cache: dict[Any, Any], key: Hashable, compute: Callable[[], Any]) -> Any:
    """The cached result. A failure is cached too, and raised again."""
    if key not in cache:
        try:
            cache[key] = compute()
        except Exception as error:
            cache[key] = error
    if isinstance(cache[key], Exception):
        raise cache[key]
    return cache[key]


class Batch:
    """A batch of texts, with the perturbations that all methods share.

    Args:
        text_model (TextModel): The classifier, in evaluation mode.
        texts (TextBatch): The texts.
        target (Tensor): The explained classes, (batch,).
    """

    def __init__(self, text_model: TextModel, texts: TextBatch, target: Tensor) -> None:
        self.text_model = text_model
        self.texts = texts
        self.target = target
        self._prepared: dict[Perturbation, Any] = {}

    def run(self) -> Tensor:
        """The model's logits for the texts, (batch, classes)."""
        with torch.no_grad():
            return self.text_model.logits(
                self.texts.input_ids, *self.texts.forward_args
            )

    def prepared(self, perturbation: Perturbation) -> Any:
        """``perturbation.prepare`` for this batch, computed once."""
        return _once(self._prepared, perturbation, lambda: perturbation.prepare(self))


@dataclass(frozen=True)
class ExplainedBatch:
    r"""
    What a metric may use of one method's explanation of one batch.

    Args:
        batch (Batch): The texts, their model and the explained classes.
        scores (Tensor): The method's scores, (batch, tokens).
        explainer (Callable): Given the texts that have to be explained again (boolean
            (batch,) or None for all), returns a function that explains them.
        cost (Cost, optional): What the explanation cost; None if it was not measured.
            Default: None
        full (Answers, optional): The model's answers on the texts, (batch,).
            Default: None
        masked (Answers, optional): Its answers on the texts with the metric's own
            :meth:`Metric.masks`, (batch, variants).
            Default: None
    """

    batch: Batch
    scores: Tensor
    explainer: Callable[[Tensor | None], Explain]
    cost: Cost | None = None
    full: Answers | None = None
    masked: Answers | None = None
    _explained_again: dict[Perturbation, Any] = field(default_factory=dict)

    @property
    def attributable(self) -> Tensor:
        """The tokens that may be scored and masked, boolean (batch, tokens)."""
        return self.batch.texts.attributable

    def explain_again(self, perturbation: Perturbation) -> Tensor:
        """The scores after a perturbation, (batch, variants, tokens), computed once."""
        batch = self.batch

        def compute() -> Tensor:
            prepared = batch.prepared(perturbation)
            explain = self.explainer(perturbation.affected(prepared))
            return perturbation.explain_again(batch, prepared, explain)

        again: Tensor = _once(self._explained_again, perturbation, compute)
        return again


class Corpus(NamedTuple):
    """The measurements of all texts, for one method.

    Args:
        measured (Tensor): What :meth:`Metric.measure_batch` returned, (texts, ...).
        uniform (Tensor, optional): The same for scores that are all 1, for metrics with
            :attr:`Metric.needs_uniform`.
        classes (Tensor): The explained classes, (texts,).
    """

    measured: Tensor
    uniform: Tensor | None
    classes: Tensor

    def subset(self, texts: Tensor) -> Corpus:
        """Some of the texts, by their positions."""
        uniform = None if self.uniform is None else self.uniform[texts]
        return Corpus(self.measured[texts], uniform, self.classes[texts])


class Metric(ABC):
    r"""
    A measure of explanations: its name, the meaning of its values and how to compute
    them.

    Attributes:
        name (str): Short name, unique, as used in tables and on the command line.
        property (str): Which property of an explanation is measured: "faithfulness",
            "resilience", "consistency", "sensitivity", "sanity" or "cost".
        higher_is_better (bool): Direction.
        value_range (tuple[float, float]): Lowest and highest possible value.
        best_value (float): The end of the range that a perfect explanation approaches.
        paper (str): Where the measure comes from.
        description (str): What is measured, in one line.
        undefined (str): What NaN means, such as "no inhibitors named"; empty if the
            metric is always defined.
        needs_one_class (bool): Whether it asks if the model still predicts the same
            class, which only a model with one right class for each text can answer.
        needs_peak_memory (bool): Whether it reads the peak memory, which is slow to
            measure.
        needs_uniform (bool): Whether :meth:`measure_corpus` compares with uniform
            scores.
        measures_vectors (bool): Whether :meth:`measure_batch` returns a vector for each
            text instead of a number.
        per_example (bool): Whether :meth:`measure_corpus` returns a number for each
            text, whose mean is the metric. Otherwise it returns one number for all of
            them, and intervals come from resampled texts.
        has_diagnostics (bool): Whether :meth:`diagnostics` reports anything.
    """

    needs_one_class = False
    needs_peak_memory = False
    needs_uniform = False
    measures_vectors = False
    per_example: bool = True
    has_diagnostics = False
    name: str
    property: str
    higher_is_better: bool
    value_range: tuple[float, float]
    best_value: float
    paper: str
    description: str
    undefined: str = ""

    def key(self) -> str:
        """Metrics with the same key share what :meth:`measure_batch` returns."""
        return self.name

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor | None:
        """The tokens to mask: boolean (batch, variants, tokens). None if the metric
        needs no masked texts. A variant that masks nothing is the text itself; it fills
        up where a text needs fewer variants."""
        return None

    @abstractmethod
    def measure_batch(self, explained: ExplainedBatch) -> Tensor:
        """A number or a vector for each text, (batch,) or (batch, dim)."""

    def measure_corpus(self, corpus: Corpus) -> Tensor:
        """The metric from all texts: (texts,), or () if not ``per_example``."""
        return corpus.measured

    def diagnostics(self, batch: Batch) -> Mapping[str, Tensor]:
        """What must be reported next to the metric, each (batch,), by name."""
        return {}
