r"""Does an explanation depend on what the model has learned?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_attngrad.metrics._parameters import copied
from captum_attngrad.metrics.base import Batch, Explain, Perturbation
from captum_attngrad.metrics.functional.agreement import spearman
from captum_attngrad.metrics.reexplain import ReexplainMetric, explain_changed_models


def shuffled_parameters(model: nn.Module, seed: int = 0) -> nn.Module:
    r"""
    A copy of a model in which the numbers of every parameter have been shuffled.

    This destroys what was learned, while each parameter keeps its distribution of
    values.

    Args:
        model (nn.Module): The model.
        seed (int): Seed of the shuffling.
            Default: 0

    Returns:
        *nn.Module*: A copy; shared parameters stay shared.
    """
    changed = copied(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in changed.parameters():
        values = parameter.detach()
        order = torch.randperm(values.numel(), generator=generator).to(values.device)
        values.copy_(values.flatten()[order].reshape(values.shape))
    return changed


@dataclass(frozen=True)
class ParameterShuffling(Perturbation):
    r"""
    All parameters of the model, shuffled together. (The cascading form of the test
    randomizes layer by layer from the output, which costs one run for each layer.)

    Args:
        n_models (int): How many shuffled models, with the seeds ``seed``, ``seed + 1``
            and so on.
            Default: 1
        seed (int): Seed of the shuffling.
            Default: 0

    Raises:
        ValueError: If ``n_models`` is not positive.
    """

    name = "randomization"

    n_models: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_models < 1:
            raise ValueError(f"n_models is {self.n_models}; expected 1 or more.")

    def prepare(self, batch: Batch) -> list[nn.Module]:
        return [
            shuffled_parameters(batch.text_model.model, self.seed + i)
            for i in range(self.n_models)
        ]

    def explain_again(
        self, batch: Batch, prepared: list[nn.Module], explain: Explain
    ) -> Tensor:
        return explain_changed_models(batch, prepared, explain)


class ParameterRandomization(ReexplainMetric):
    r"""
    Parameter randomization test (Adebayo et al. 2018): the magnitude of the rank
    correlation between the scores and those for the same class of a model whose
    parameters have been shuffled, mean over such models.

    A method whose scores are much the same for a model that has learned nothing
    explains the text rather than the model. The test is necessary, not sufficient:
    random scores pass it. NaN where all scores are equal, before or after.

    Reference: Adebayo et al. 2018, https://arxiv.org/abs/1810.03292

    Args:
        perturbation (ParameterShuffling, optional): None for one shuffled model.
            Default: None

    Examples::

        >>> ParameterRandomization()(text_model, batch, target, explain)  # (batch,)
    """

    name = "parameter_randomization"
    property = "sanity"
    higher_is_better = False
    value_range = (0.0, 1.0)
    best_value = 0.0
    paper = "Adebayo et al. 2018, Sanity Checks for Saliency Maps"
    description = (
        "magnitude of Spearman's correlation with the scores for a model whose "
        "parameters have been shuffled"
    )
    undefined = "all scores equal"

    def __init__(self, perturbation: ParameterShuffling | None = None) -> None:
        super().__init__(perturbation or ParameterShuffling())

    def value(
        self, scores: Tensor, attributable: Tensor, prepared: Any, again: Tensor
    ) -> Tensor:
        each = [
            spearman(scores, after, attributable).abs() for after in again.unbind(dim=1)
        ]
        return torch.stack(each, dim=1).nanmean(dim=1)
