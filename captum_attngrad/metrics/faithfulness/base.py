r"""Metrics that mask tokens and read the model's answers."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from captum_attngrad.metrics.base import ExplainedBatch, Metric
from captum_attngrad.metrics.functional.masking import (
    DEFAULT_TOKENS_PER_BATCH,
    Answers,
    Target,
    masked_answers,
)
from captum_attngrad.metrics.functional.masks import checked_attributable, with_unmasked


class ErasureMetric(Metric):
    r"""
    A metric that masks tokens, as the scores say, and reads the model's answers.

    :meth:`masks` says which masked texts the metric needs, :meth:`value` turns the
    model's answers on them into the metric. In between a harness runs the masked texts
    of many metrics and methods together. Calling the instance does all of it.
    """

    property = "faithfulness"

    @abstractmethod
    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        """The tokens to mask: boolean (batch, variants, tokens)."""

    @abstractmethod
    def value(
        self, full: Answers, masked: Answers, scores: Tensor, attributable: Tensor
    ) -> Tensor:
        """The metric (batch,) from the answers on the texts (batch,) and on their
        variants (batch, variants), these in the order of :meth:`masks`."""

    def measure_batch(self, explained: ExplainedBatch) -> Tensor:
        assert explained.full is not None
        assert explained.masked is not None
        return self.value(
            explained.full, explained.masked, explained.scores, explained.attributable
        )

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
        """The metric, shape (batch,). The arguments are those of
        :func:`~captum_attngrad.metrics.functional.comprehensiveness`."""
        attributable = checked_attributable(inputs, attributions, attributable)
        masks = self.masks(attributions, attributable)
        answers = masked_answers(
            forward_func,
            inputs,
            with_unmasked(masks),
            target,
            replacement,
            additional_forward_args,
            max_tokens_per_batch,
        )
        full, masked = answers.split([1, masks.shape[1]])
        return self.value(full.squeeze(), masked, attributions, attributable)
