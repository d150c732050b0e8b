r"""
What every measure of an explanation declares about itself, and the four kinds there
are.

A harness that runs many methods and metrics over many texts handles each kind once:

=========================  ============================================================
:class:`ErasureMetric`     removes tokens and reads the model's answers. Collect
                           ``removed(...)`` over metrics and methods, run each distinct
                           variant once, hand the answers to ``value(...)``.
:class:`ReexplainMetric`   compares the scores with those after a
                           :class:`Perturbation` of the input or the model. For each
                           batch run ``perturbation.prepare(...)`` once for all methods,
                           ``perturbation.explain_again(...)`` once for each method, and
                           ``value(...)`` for each metric that names the perturbation.
:class:`CorpusMetric`      looks at the scores of all texts together. Collect
                           ``vectors(...)`` batch by batch, once for each method and
                           once with all scores 1, then call ``value(...)``.
:class:`CostMetric`        reads one :class:`~captum_attngrad.metrics.cost.Cost`.
=========================  ============================================================

A value is NaN where a metric has nothing to say about an example;
:attr:`Metric.undefined` states what that means. Means over examples leave NaN out and
say how many were left.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_attngrad._classes import check_labels
from captum_attngrad.metrics._vectors import check_vector, score_vectors
from captum_attngrad.metrics.removal import (
    DEFAULT_TOKENS_PER_BATCH,
    Answers,
    Target,
    removal_answers,
)
from captum_attngrad.text.text_model import TextBatch, TextModel

if TYPE_CHECKING:
    from captum_attngrad.metrics.cost import Cost

#: Fractions of the tokens over which the erasure metrics are averaged by default.
DEFAULT_BINS = (0.05, 0.1, 0.2, 0.5)


#: Maps (input_ids, attention_mask, target) to scores (batch, tokens). It is always
#: called with one variant of each text of the batch, in the batch's order and length,
#: and has to explain the model as it is *at that moment*. A method that draws at
#: random draws anew in each call (from the texts' seeds and the number of the call),
#: or it would look as if nothing could move it.
Explain = Callable[[Tensor, Tensor, Tensor], Tensor]


class Metric(ABC):
    r"""
    A measure of explanations: what it is called and how its values are to be read.

    Attributes:
        name (str): Short name, unique, as used in tables and on the command line.
        property (str): Which property of an explanation is measured: "faithfulness",
            "resilience", "consistency", "sensitivity", "sanity" or "cost".
        higher_is_better (bool): Direction.
        value_range (tuple[float, float]): Lowest and highest possible value.
        best_value (float): The end of the range that a perfect explanation tends to.
        paper (str): Where the measure comes from.
        description (str): What is measured, in one line.
        undefined (str): What NaN means, such as "no inhibitors named"; empty if the
            metric is always defined.
        needs_one_class (bool): Whether it asks if the model still decides for the same
            class, which only a model with one right class for each text can say.
    """

    needs_one_class = False
    name: str
    property: str
    higher_is_better: bool
    value_range: tuple[float, float]
    best_value: float
    paper: str
    description: str
    undefined: str = ""


class ErasureMetric(Metric):
    r"""
    A metric that removes tokens, as the scores say, and watches the model's answer.

    It is split in two so that a harness can collect the variants that many metrics and
    methods ask for, run each distinct variant once, and then hand out the answers:
    :meth:`removed` says which variants are needed, :meth:`value` turns the answers into
    the metric. Calling the instance does all of it.
    """

    property = "faithfulness"

    @abstractmethod
    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        """Tokens to replace: boolean (batch, variants, tokens). A variant that removes
        nothing is the text itself; it fills up where a text needs fewer variants."""

    @abstractmethod
    def value(
        self,
        full: Answers,
        removed: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        """The metric (batch,) from the answers on the texts (batch,) and on their
        variants (batch, variants), these in the order of :meth:`removed`."""

    def __call__(
        self,
        forward_func: Callable[..., Tensor],
        inputs: Tensor,
        attributions: Tensor,
        target: Target,
        replacement: int,
        attributable: Tensor | None = None,
        additional_forward_args: Any = None,
        max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
    ) -> Tensor:
        """The metric, shape (batch,); the arguments are those of
        :func:`~captum_attngrad.metrics.comprehensiveness`."""
        if attributions.shape != inputs.shape:
            raise ValueError(
                f"attributions has shape {tuple(attributions.shape)} and inputs has "
                f"shape {tuple(inputs.shape)}; expected one score for each token."
            )
        if attributable is None:
            attributable = torch.ones_like(inputs, dtype=torch.bool)
        removed = self.removed(attributions, attributable)
        nothing = torch.zeros_like(attributable).unsqueeze(1)
        answers = removal_answers(
            forward_func,
            inputs,
            torch.cat([nothing, removed], dim=1),
            target,
            replacement,
            additional_forward_args,
            max_tokens_per_batch,
        )
        full, variants = answers.split([1, removed.shape[1]])
        return self.value(full.squeeze(), variants, attributions, attributable)


class Perturbation(ABC):
    r"""
    A change of the texts or of the model after which explanations are asked for again.
    The model has to be in evaluation mode.

    Instances with the same settings are equal, so that metrics that share a
    perturbation share its work.

    Attributes:
        name (str): Short name, the first part of the names of metrics that use it.
        needs_one_class (bool): As :attr:`Metric.needs_one_class`.
    """

    needs_one_class = False
    name: str

    def settings(self) -> Hashable:
        """What two equal perturbations agree on."""
        return tuple(sorted(vars(self).items()))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Perturbation)
            and type(self) is type(other)
            and self.settings() == other.settings()
        )

    def __hash__(self) -> int:
        return hash((type(self), self.settings()))

    @abstractmethod
    def prepare(self, text_model: TextModel, batch: TextBatch, target: Tensor) -> Any:
        """Everything that does not depend on the method: attacked texts, changed
        models. The result serves this batch only."""

    @abstractmethod
    def explain_again(
        self,
        text_model: TextModel,
        batch: TextBatch,
        target: Tensor,
        prepared: Any,
        explain: Explain,
    ) -> Tensor:
        """Scores after the perturbation, (batch, variants, tokens)."""

    def matters(self, prepared: Any) -> Tensor | None:
        """For which texts, (batch,), metrics look at the scores after; None for all.
        The others, such as those that an attack could not change, need not be explained
        again."""
        return None

    def diagnostics(self, prepared: Any) -> Mapping[str, Tensor]:
        """What has to be shown next to the metrics, each (batch,), such as whether an
        attack succeeded. Does not depend on the method."""
        return {}


class ReexplainMetric(Metric):
    r"""
    A metric that compares the scores with those after a perturbation.

    Args:
        perturbation (Perturbation): What is changed. Metrics with equal perturbations
            can share ``prepare`` and ``explain_again``.
    """

    def __init__(self, perturbation: Perturbation) -> None:
        self.perturbation = perturbation
        self.needs_one_class = perturbation.needs_one_class

    @abstractmethod
    def value(
        self, attributions: Tensor, attributable: Tensor, prepared: Any, again: Tensor
    ) -> Tensor:
        """The metric (batch,) from the scores before, (batch, tokens), and after,
        (batch, variants, tokens)."""

    def __call__(
        self,
        text_model: TextModel,
        batch: TextBatch,
        target: Tensor,
        explain: Explain,
    ) -> Tensor:
        """The metric, shape (batch,), doing everything for this metric alone."""
        classes = check_labels("target", target, len(text_model.class_names))
        target = torch.tensor(classes, device=batch.input_ids.device)
        if len(target) != len(batch):
            raise ValueError(
                f"target has {len(target)} entries for {len(batch)} texts; expected "
                "one class for each."
            )
        before = explain(batch.input_ids, batch.attention_mask, target)
        prepared = self.perturbation.prepare(text_model, batch, target)
        again = self.perturbation.explain_again(
            text_model, batch, target, prepared, explain
        )
        return self.value(before, batch.attributable, prepared, again)


class CorpusMetric(Metric):
    r"""
    A metric of the scores of many texts together, which does not run the model.

    Each text becomes one vector (:meth:`vectors`); the metric compares the vectors of
    texts that are explained for the same class with those of other classes
    (:meth:`value`). Metrics with the same ``vector`` share the vectors.

    Args:
        vector (str): "embedding" for the score-weighted mean of the token embeddings,
            "bag" for a bag of tokens
            (:func:`~captum_attngrad.metrics.score_vectors`).
            Default: "embedding"
        relative (bool): Whether the value of uniform scores is taken off, so that a
            method gets credit only for what it adds.
            Default: False

    Attributes:
        per_example (bool): Whether :meth:`value` has one number for each text, whose
            mean is the metric. Otherwise it has a single number for them all, and an
            interval needs resampled texts.
    """

    property = "consistency"
    per_example: bool = True

    def __init__(self, vector: str = "embedding", relative: bool = False) -> None:
        check_vector(vector)
        self.vector = vector
        self.relative = relative
        if vector == "bag":
            self.name = f"{self.name}_bag"
        if relative:
            low, high = self.value_range
            self.name = f"{self.name}_gain"
            self.value_range = (low - high, high - low)
            self.best_value = self.value_range[self.higher_is_better]
            self.description = f"{self.description}, minus that of uniform scores"

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
        value = self.compactness(vectors, classes)
        return value - self.compactness(uniform, classes) if self.relative else value

    @abstractmethod
    def compactness(self, vectors: Tensor, classes: Tensor) -> Tensor:
        """The metric of one set of vectors, whatever ``relative`` is."""


class CostMetric(Metric):
    """What an explanation costs, per example."""

    property = "cost"
    higher_is_better = False
    value_range = (0.0, float("inf"))
    best_value = 0.0
    paper = ""

    @abstractmethod
    def value(self, cost: "Cost") -> float:
        """The number in question."""
