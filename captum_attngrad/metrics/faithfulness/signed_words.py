r"""The positive-word test and the inhibitor-word test: do the signs tell the truth?"""

from collections.abc import Sequence

from torch import Tensor

from captum_attngrad.metrics.faithfulness.base import ErasureMetric
from captum_attngrad.metrics.functional.faithfulness import (
    inhibitor_word_rise,
    positive_word_drop,
)
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.metrics.functional.masks import (
    DEFAULT_BINS,
    check_fractions,
    top_token_masks,
)


class _WordsOfOneSign(ErasureMetric):
    """Masks the top-scored tokens with positive scores."""

    higher_is_better = True
    value_range = (-1.0, 1.0)
    best_value = 1.0
    paper = (
        "Chakraborty, Le, Gurram and Tomsett, Paying Attention to Attention for "
        "Explanation; bins as in DeYoung et al. 2020"
    )

    def __init__(self, bins: Sequence[float] = DEFAULT_BINS) -> None:
        self.bins = check_fractions(bins)

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        top = top_token_masks(attributions, attributable, self.bins)
        return top & (attributions > 0).unsqueeze(1)


class PositiveWords(_WordsOfOneSign):
    r"""
    Positive-word test: drop of the explained class's probability when the top-scored
    tokens *with positive scores* are masked.

    .. math::
        \frac{1}{|B|} \sum_{b \in B} p(c \mid x) - p(c \mid x \setminus r_b^+)

    where :math:`r_b^+` are the tokens with positive scores among the top fraction
    :math:`b` of the attributable tokens. If fewer scores are positive than the fraction
    asks for, only those tokens are masked: a method need not name more words than it
    does. Without any positive score the value is NaN.

    Args:
        bins (Sequence of float): Fractions of the attributable tokens.
            Default: (0.05, 0.1, 0.2, 0.5)

    Examples::

        >>> PositiveWords()(forward, input_ids, scores, target=1, replacement=unk_id)
    """

    name = "positive_words"
    description = (
        "drop of the explained class's probability when the most positive tokens are "
        "masked, mean over the bins"
    )
    undefined = "no positive words named"

    def value(
        self, full: Answers, masked: Answers, scores: Tensor, attributable: Tensor
    ) -> Tensor:
        return positive_word_drop(full.p, masked.p, scores, attributable)


class InhibitorWords(_WordsOfOneSign):
    r"""
    Inhibitor-word test: rise of the explained class's probability when the tokens with
    the most negative scores are masked.

    .. math::
        \frac{1}{|B|} \sum_{b \in B} p(c \mid x \setminus r_b^-) - p(c \mid x)

    where :math:`r_b^-` are the tokens with negative scores among the lowest-scored
    fraction :math:`b` of the attributable tokens. A method that gives no negative score
    names no inhibitors; its value is NaN rather than 0, which would look like a result.

    Args:
        bins (Sequence of float): Fractions of the attributable tokens.
            Default: (0.05, 0.1, 0.2, 0.5)

    Examples::

        >>> InhibitorWords()(forward, input_ids, scores, target=1, replacement=unk_id)
    """

    name = "inhibitor_words"
    description = (
        "rise of the explained class's probability when the most negative tokens are "
        "masked, mean over the bins"
    )
    undefined = "no inhibitors named"

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        return super().masks(-attributions, attributable)

    def value(
        self, full: Answers, masked: Answers, scores: Tensor, attributable: Tensor
    ) -> Tensor:
        return inhibitor_word_rise(full.p, masked.p, scores, attributable)
