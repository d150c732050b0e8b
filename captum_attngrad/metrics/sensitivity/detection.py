r"""Do explanations reveal an attack?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_attngrad.metrics.functional.agreement import cosine_similarity
from captum_attngrad.metrics.functional.sensitivity import detection_auroc, top_share
from captum_attngrad.metrics.reexplain import ReexplainMetric
from captum_attngrad.metrics.sensitivity.embedding_attack import (
    EmbeddingAttack,
)
from captum_attngrad.metrics.sensitivity.token_attack import AttackedTexts, TokenAttack


class AttackDetection(ReexplainMetric):
    r"""
    Can the explanation tell an attack from noise? AUROC (within each text) of the
    cosine distance between the explanation before and after a successful attack,
    against that under random noise of the same size that does not change the class.

    The class that is explained is the one predicted before, each time: an explanation
    of another class would differ because the question does. NaN where the attack failed
    or every noisy variant changed the class. The attack's success rate is among the
    perturbation's ``diagnostics``.

    Args:
        perturbation (TokenAttack or EmbeddingAttack, optional): The attack. None for
            :class:`TokenAttack`.
            Default: None

    Examples::

        >>> metric = AttackDetection(EmbeddingAttack("fgsm"))
        >>> metric(text_model, batch, target, explain)  # (batch,)
    """

    property = "sensitivity"
    higher_is_better = True
    value_range = (0.0, 1.0)
    best_value = 1.0
    undefined = "the attack failed, or all noise changed the class"

    def __init__(self, perturbation: TokenAttack | EmbeddingAttack | None = None):
        super().__init__(perturbation or TokenAttack())
        self.name = f"{self.perturbation.name}_auroc"
        self.description = (
            "AUROC of the explanation's distance under a successful attack against "
            "that under noise of the same size that keeps the class"
        )
        self.paper = self.perturbation.paper

    def value(
        self, scores: Tensor, attributable: Tensor, prepared: Any, again: Tensor
    ) -> Tensor:
        n_noise = prepared.noise_valid.shape[1]
        distances = [
            1 - cosine_similarity(scores, after, attributable)
            for after in (again[:, 0], *again[:, -n_noise:].unbind(dim=1))
        ]
        attacked = distances[0].masked_fill(~prepared.success, torch.nan)
        noise = torch.stack(distances[1:], dim=1)
        return detection_auroc(attacked, noise, prepared.noise_valid)


class AttackLocalization(ReexplainMetric):
    r"""
    Does the explanation of the class that the model now predicts point to the words
    that made it do so? Of the :math:`k` tokens that a successful attack substituted,
    the share among the :math:`k` top-scored tokens for the newly predicted class.

    NaN where the attack failed. Random scores reach :math:`k` over the number of tokens
    on average.

    Args:
        perturbation (TokenAttack, optional): The attack. None for the default one.
            Default: None

    Examples::

        >>> AttackLocalization()(text_model, batch, target, explain)  # (batch,)
    """

    name = "attack_localization"
    property = "sensitivity"
    higher_is_better = True
    value_range = (0.0, 1.0)
    best_value = 1.0
    paper = "Ebrahimi et al. 2018, HotFlip (the attack)"
    description = (
        "share of the k substituted tokens among the top k for the class that a "
        "successful attack made the model predict"
    )
    undefined = "the attack failed"

    def __init__(self, perturbation: TokenAttack | None = None) -> None:
        super().__init__(perturbation or TokenAttack())

    def value(
        self,
        scores: Tensor,
        attributable: Tensor,
        prepared: AttackedTexts,
        again: Tensor,
    ) -> Tensor:
        share = top_share(again[:, 1], prepared.substituted, attributable)
        return share.masked_fill(~prepared.success, torch.nan)
