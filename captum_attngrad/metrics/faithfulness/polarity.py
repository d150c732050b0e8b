r"""Does the strongest token have an effect of the sign that its score has?"""

from torch import Tensor

from captum_attngrad.metrics.faithfulness.base import ErasureMetric
from captum_attngrad.metrics.functional.faithfulness import polarity_violation
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.metrics.functional.masks import top_token_masks


class PolarityViolation(ErasureMetric):
    r"""
    Polarity violation: the strongest token's sign against the sign of its effect (the
    faithfulness violation test of Liu et al. 2022).

    .. math::
        1[\operatorname{sign}(a_i) \ne
        \operatorname{sign}(p(c \mid x) - p(c \mid x \setminus i))],
        \quad i = \arg\max_j |a_j|

    The mean over texts is the share of texts in which the method claims the wrong
    direction for the token that it considers most important. Equal magnitudes go to the
    earlier token. NaN where all scores are 0 or the token has no effect at all.

    Reference: Liu et al. 2022, https://proceedings.mlr.press/v162/liu22i.html

    Examples::

        >>> PolarityViolation()(forward, input_ids, scores, target=1, replacement=0)
    """

    name = "polarity_violation"
    higher_is_better = False
    value_range = (0.0, 1.0)
    best_value = 0.0
    paper = (
        "Liu et al. 2022, Rethinking Attention-Model Explainability through "
        "Faithfulness Violation Test"
    )
    description = (
        "whether masking the token with the largest score in magnitude moves the "
        "explained class's probability against the score's sign"
    )
    undefined = "no score, or a strongest token without effect"

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        # A fraction this small is rounded up to one token.
        return top_token_masks(attributions.abs(), attributable, [1e-6])

    def value(
        self, full: Answers, masked: Answers, scores: Tensor, attributable: Tensor
    ) -> Tensor:
        chosen = self.masks(scores, attributable)[:, 0]
        strongest = scores.masked_fill(~chosen, 0).sum(dim=1)
        return polarity_violation(strongest, full.p - masked.p[:, 0])
