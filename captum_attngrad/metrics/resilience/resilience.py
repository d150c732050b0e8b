r"""Do the scores stay the same when the model's answer does?"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_attngrad.metrics.base import Perturbation
from captum_attngrad.metrics.functional.agreement import AGREEMENTS, mean_agreement
from captum_attngrad.metrics.reexplain import ReexplainMetric
from captum_attngrad.metrics.resilience.model_changes import InvariantModelChanges


class Resilience(ReexplainMetric):
    r"""
    Agreement of the scores before and after a perturbation that leaves the model's
    answer alone.

    Args:
        perturbation (Perturbation, optional): :class:`InvariantModelChanges`,
            :class:`NeighborSubstitution` or one of your own. None for all invariant
            changes that apply to the model.
            Default: None
        measure (str): "spearman", "cosine" or "top_k" (overlap of the top 20%).
            Default: "spearman"

    Raises:
        ValueError: On another ``measure``.

    Examples::

        >>> explain = lambda ids, mask, target: method.attribute(
        ...     ids, target=target, additional_forward_args=(mask,)
        ... )
        >>> Resilience()(text_model, batch, target, explain)  # (batch,)
    """

    property = "resilience"
    higher_is_better = True
    best_value = 1.0
    undefined = "no variant with the same answer, or all scores equal"

    def __init__(
        self,
        perturbation: Perturbation | None = None,
        measure: str = "spearman",
    ) -> None:
        if measure not in AGREEMENTS:
            raise ValueError(
                f"measure is {measure!r}; expected one of: {', '.join(AGREEMENTS)}."
            )
        super().__init__(perturbation or InvariantModelChanges())
        self.measure = measure
        self.name = f"{self.perturbation.name}_{measure}"
        self.value_range = (0.0 if measure == "top_k" else -1.0, 1.0)
        self.paper = self.perturbation.paper
        self.description = (
            f"{measure} agreement of the scores before and after "
            f"{self.perturbation.description}"
        )

    def value(
        self, scores: Tensor, attributable: Tensor, prepared: Any, again: Tensor
    ) -> Tensor:
        valid = self.perturbation.valid(prepared)
        if valid is None:
            valid = attributable.new_ones(again.shape[:2])
        return mean_agreement(scores, again, attributable, valid, self.measure)
