r"""How far do scores move under small noise?"""

from __future__ import annotations

from torch import Tensor

from captum_attngrad.metrics.functional.sensitivity import sensitivity_max
from captum_attngrad.metrics.reexplain import ReexplainMetric
from captum_attngrad.metrics.sensitivity.embedding_attack import EmbeddingNoise


class SensitivityMax(ReexplainMetric):
    r"""
    Maximum sensitivity (Yeh et al. 2019): the largest relative change of the scores
    under small uniform noise on the embeddings.

    It equals ``captum.metrics.sensitivity_max`` with the embeddings as inputs, the same
    noise as perturbations, and an explanation function that explains moved embeddings.
    Here the noise is drawn for each text by its own seed, so that the value of a text
    does not depend on its batch.

    Args:
        perturbation (EmbeddingNoise, optional): The noise. None for the default one.
            Default: None

    Examples::

        >>> SensitivityMax()(text_model, batch, target, explain)  # (batch,)
    """

    name = "sensitivity_max"
    property = "sensitivity"
    higher_is_better = False
    value_range = (0.0, float("inf"))
    best_value = 0.0
    paper = "Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations"
    description = (
        "largest relative change of the scores under small noise on the embeddings"
    )

    def __init__(self, perturbation: EmbeddingNoise | None = None) -> None:
        super().__init__(perturbation or EmbeddingNoise())

    def value(
        self, scores: Tensor, attributable: Tensor, prepared: Tensor, again: Tensor
    ) -> Tensor:
        return sensitivity_max(scores, again, attributable)
