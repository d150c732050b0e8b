r"""Do explanations notice an attack, and do they stay calm without one?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_attngrad.metrics._precision import wide
from captum_attngrad.metrics.agreement import cosine_similarity
from captum_attngrad.metrics.base import ReexplainMetric
from captum_attngrad.metrics.embedding_attack import (
    AttackedEmbeddings,
    EmbeddingAttack,
    EmbeddingNoise,
)
from captum_attngrad.metrics.removal import check_scores
from captum_attngrad.metrics.token_attack import AttackedTexts, TokenAttack


def detection_auroc(attacked: Tensor, noise: Tensor, valid: Tensor) -> Tensor:
    r"""
    Area under the ROC curve of telling an attacked variant of a text from noisy ones by
    a distance: the share of its noisy variants that are nearer than the attacked one,
    equal distances counting one half.

    Args:
        attacked (Tensor): Distance under attack, shape (batch,); NaN where the attack
            failed.
        noise (Tensor): Distances under noise, shape (batch, draws).
        valid (Tensor): Boolean, same shape: which of them count.

    Returns:
        *Tensor*: Shape (batch,), from 0 to 1; NaN without attack or without noise. The
        mean over texts compares attack and noise within each text, so that texts whose
        explanation moves easily do not hide those whose does not.
    """
    difference = attacked.unsqueeze(1) - noise
    wins = (torch.sign(difference) + 1) / 2
    # The sign of NaN is 0.
    defined = valid & ~difference.isnan()
    return wins.masked_fill(~defined, torch.nan).nanmean(dim=1)


def top_share(scores: Tensor, wanted: Tensor, attributable: Tensor) -> Tensor:
    r"""
    Share of some tokens that are among the top-scored ones, as many as they are.

    Args:
        scores (Tensor): Shape (batch, tokens).
        wanted (Tensor): Boolean, same shape: the tokens that should be at the top.
        attributable (Tensor): Boolean, same shape.

    Returns:
        *Tensor*: Shape (batch,), from 0 to 1; NaN where no token is wanted. Ties go to
        the earlier token.
    """
    filled = check_scores(scores, attributable)
    order = filled.sort(dim=1, descending=True, stable=True).indices
    counts = wanted.sum(dim=1, keepdim=True)
    top = torch.arange(scores.shape[1], device=scores.device) < counts
    found = (wanted.gather(1, order) & top).sum(dim=1)
    return wide(found) / counts.squeeze(1)  # 0 / 0 is NaN


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
        self.paper = {
            "token_attack": "Ebrahimi et al. 2018, HotFlip",
            "fgsm_attack": "Goodfellow et al. 2015, Explaining and Harnessing "
            "Adversarial Examples",
            "pgd_attack": "Madry et al. 2018, Towards Deep Learning Models Resistant "
            "to Adversarial Attacks",
        }[self.perturbation.name]

    def value(
        self,
        attributions: Tensor,
        attributable: Tensor,
        prepared: AttackedTexts | AttackedEmbeddings,
        again: Tensor,
    ) -> Tensor:
        n_noise = prepared.noise_valid.shape[1]
        distances = [
            1 - cosine_similarity(attributions, scores, attributable)
            for scores in (again[:, 0], *again[:, -n_noise:].unbind(dim=1))
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
        attributions: Tensor,
        attributable: Tensor,
        prepared: AttackedTexts,
        again: Tensor,
    ) -> Tensor:
        share = top_share(again[:, 1], prepared.substituted, attributable)
        return share.masked_fill(~prepared.success, torch.nan)


def max_sensitivity(before: Tensor, again: Tensor, attributable: Tensor) -> Tensor:
    r"""
    Largest change of the scores, relative to them.

    .. math::
        \max_k \frac{\lVert a^{(k)} - a \rVert_2}{\lVert a \rVert_2}

    Args:
        before (Tensor): Scores, shape (batch, tokens).
        again (Tensor): Scores after each perturbation, shape (batch, draws, tokens).
        attributable (Tensor): Boolean, shape (batch, tokens): the tokens that count.

    Returns:
        *Tensor*: Shape (batch,), 0 or more. As in Captum, scores that are all 0 have
        the norm 1.
    """
    start = wide(before).masked_fill(~attributable, 0)
    moved = wide(again).masked_fill(~attributable.unsqueeze(1), 0)
    norm = start.norm(dim=1)
    change: Tensor = (moved - start.unsqueeze(1)).norm(dim=2).amax(dim=1)
    return change / torch.where(norm == 0, 1.0, norm)


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
        self,
        attributions: Tensor,
        attributable: Tensor,
        prepared: Tensor,
        again: Tensor,
    ) -> Tensor:
        return max_sensitivity(attributions, again, attributable)
