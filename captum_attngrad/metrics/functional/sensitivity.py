r"""Sensitivity: does an explanation react to attacks, and only to them?"""

import torch
from torch import Tensor

from captum_attngrad.metrics.functional._precision import wide
from captum_attngrad.metrics.functional.masks import check_scores


def detection_auroc(attacked: Tensor, noise: Tensor, valid: Tensor) -> Tensor:
    r"""
    Area under the ROC curve for telling an attacked variant of a text from noisy ones
    by a distance: the share of the noisy variants that are closer than the attacked
    one, where equal distances count one half.

    Args:
        attacked (Tensor): Distance under attack, shape (batch,); NaN where the attack
            failed.
        noise (Tensor): Distances under noise, shape (batch, draws).
        valid (Tensor): Boolean, same shape: which of them count.

    Returns:
        *Tensor*: Shape (batch,), from 0 to 1; NaN without an attack or without
        noise. Attack and noise are compared within each text, so that the mean over
        texts does not depend on how easily each text's explanation moves.
    """
    difference = attacked.unsqueeze(1) - noise
    wins = (torch.sign(difference) + 1) / 2
    # The sign of NaN is 0.
    defined = valid & ~difference.isnan()
    return wins.masked_fill(~defined, torch.nan).nanmean(dim=1)


def top_share(scores: Tensor, wanted: Tensor, attributable: Tensor) -> Tensor:
    r"""
    Share of :math:`k` wanted tokens that are among the :math:`k` top-scored ones.

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


def sensitivity_max(before: Tensor, again: Tensor, attributable: Tensor) -> Tensor:
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
