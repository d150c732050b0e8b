r"""Agreement with the effect of masking each token on its own."""

from torch import Tensor

from captum_attngrad.metrics.faithfulness.base import ErasureMetric
from captum_attngrad.metrics.functional.agreement import kendall_tau_b
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.metrics.functional.masks import check_scores, leave_one_out_masks


class LeaveOneOutAgreement(ErasureMetric):
    r"""
    Leave-one-out agreement: rank correlation of the scores with the drop of the
    explained class's probability when each token alone is masked.

    .. math::
        \tau_b(a, \Delta), \quad \Delta_i = p(c \mid x) - p(c \mid x \setminus i)

    over the attributable tokens :math:`i`, with Kendall's :math:`\tau_b`
    (:func:`~captum_attngrad.metrics.functional.kendall_tau_b`). NaN where all scores or
    all effects are equal. The method "leave one out" has 1 by construction: it is the
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
        "probability when each token alone is masked"
    )
    undefined = "all scores or all effects equal"

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        check_scores(attributions, attributable)
        return leave_one_out_masks(attributable)

    def value(
        self, full: Answers, masked: Answers, scores: Tensor, attributable: Tensor
    ) -> Tensor:
        effects = full.p.unsqueeze(1) - masked.p
        return kendall_tau_b(scores, effects, attributable)
