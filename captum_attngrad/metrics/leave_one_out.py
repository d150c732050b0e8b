r"""Agreement with what each token's removal does on its own."""

import torch
from torch import Tensor

from captum_attngrad.metrics.agreement import kendall_tau_b
from captum_attngrad.metrics.base import ErasureMetric
from captum_attngrad.metrics.removal import Answers, check_scores


def leave_one_out_masks(attributable: Tensor) -> Tensor:
    r"""
    One variant for each position, which removes the token there.

    Args:
        attributable (Tensor): Boolean, shape (batch, tokens).

    Returns:
        *Tensor*: Boolean, shape (batch, tokens, tokens); [b, i] is True at i alone, and
        nowhere if i is not attributable in text b.
    """
    one = torch.eye(attributable.shape[1], dtype=torch.bool, device=attributable.device)
    return one & attributable.unsqueeze(1)


class LeaveOneOutAgreement(ErasureMetric):
    r"""
    Leave-one-out agreement: rank correlation of the scores with the drop of the
    explained class's probability when each token alone is replaced.

    .. math::
        \tau_b(a, \Delta), \quad \Delta_i = p(c \mid x) - p(c \mid x \setminus i)

    over the attributable tokens :math:`i`, with Kendall's :math:`\tau_b`
    (:func:`~captum_attngrad.metrics.kendall_tau_b`). NaN where all scores or all
    effects are equal. The method "leave one out" has 1 by construction: it is the
    anchor, not a competitor. The variants are the same for every method, so they cost
    one run of each.

    Reference: Jain and Wallace 2019, https://aclanthology.org/N19-1357

    Examples::

        >>> LeaveOneOutAgreement()(forward, input_ids, scores, target=1, replacement=0)
    """

    name = "leave_one_out_agreement"
    higher_is_better = True
    value_range = (-1.0, 1.0)
    best_value = 1.0
    paper = "Jain and Wallace 2019, Attention is not Explanation"
    description = (
        "Kendall's tau-b between the scores and the drop of the explained class's "
        "probability when each token alone is replaced"
    )
    undefined = "all scores or all effects equal"

    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        check_scores(attributions, attributable)
        return leave_one_out_masks(attributable)

    def value(
        self,
        full: Answers,
        removed: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        effects = full.p.unsqueeze(1) - removed.p
        return kendall_tau_b(attributions, effects, attributable)
