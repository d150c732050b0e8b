r"""The positive-word test and the inhibitor-word test: do the signs tell the truth?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_attngrad.metrics.base import DEFAULT_BINS, ErasureMetric
from captum_attngrad.metrics.removal import Answers, check_fractions, top_token_masks


def positive_word_drop(
    p_full: Tensor, p_removed: Tensor, attributions: Tensor, attributable: Tensor
) -> Tensor:
    r"""
    Mean drop of the explained class's probability when positive words are replaced.

    Args:
        p_full (Tensor): Probability of the explained class, shape (batch,).
        p_removed (Tensor): The same without the words, shape (batch, variants).
        attributions (Tensor): Scores, shape (batch, tokens).
        attributable (Tensor): Boolean, same shape.

    Returns:
        *Tensor*: Shape (batch,), from -1 to 1; NaN where no score is positive.
    """
    named = ((attributions > 0) & attributable).any(dim=1)
    drop = (p_full.unsqueeze(1) - p_removed).mean(dim=1)
    return drop.masked_fill(~named, torch.nan)


def inhibitor_word_rise(
    p_full: Tensor, p_removed: Tensor, attributions: Tensor, attributable: Tensor
) -> Tensor:
    r"""
    Mean rise of the explained class's probability when inhibitor words are replaced.

    Args:
        p_full (Tensor): Probability of the explained class, shape (batch,).
        p_removed (Tensor): The same without the words, shape (batch, variants).
        attributions (Tensor): Scores, shape (batch, tokens).
        attributable (Tensor): Boolean, same shape.

    Returns:
        *Tensor*: Shape (batch,), from -1 to 1; NaN where no score is negative.
    """
    return -positive_word_drop(p_full, p_removed, -attributions, attributable)


class _WordsOfOneSign(ErasureMetric):
    """Replaces the top-scored tokens, of those with positive scores."""

    higher_is_better = True
    value_range = (-1.0, 1.0)
    best_value = 1.0
    paper = (
        "Chakraborty, Le, Gurram and Tomsett, Paying Attention to Attention for "
        "Explanation; bins as in DeYoung et al. 2020"
    )

    def __init__(self, bins: Sequence[float] = DEFAULT_BINS) -> None:
        self.bins = check_fractions(bins)

    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        top = top_token_masks(attributions, attributable, self.bins)
        return top & (attributions > 0).unsqueeze(1)


class PositiveWords(_WordsOfOneSign):
    r"""
    Positive-word test: drop of the explained class's probability when the top-scored
    tokens *with positive scores* are replaced.

    .. math::
        \frac{1}{|B|} \sum_{b \in B} p(c \mid x) - p(c \mid x \setminus r_b^+)

    where :math:`r_b^+` are the tokens with positive scores among the top fraction
    :math:`b` of the attributable tokens. Where there are fewer positive scores than the
    fraction asks for, only those go: a method is not made to name more words than it
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
        "replaced, mean over the bins"
    )
    undefined = "no positive words named"

    def value(
        self,
        full: Answers,
        removed: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        return positive_word_drop(full.p, removed.p, attributions, attributable)


class InhibitorWords(_WordsOfOneSign):
    r"""
    Inhibitor-word test: rise of the explained class's probability when the tokens with
    the most negative scores are replaced.

    .. math::
        \frac{1}{|B|} \sum_{b \in B} p(c \mid x \setminus r_b^-) - p(c \mid x)

    where :math:`r_b^-` are the tokens with negative scores among the lowest-scored
    fraction :math:`b` of the attributable tokens. A method that gives no negative score
    names no inhibitors; its value is NaN, and not a zero that looks like a result.

    Args:
        bins (Sequence of float): Fractions of the attributable tokens.
            Default: (0.05, 0.1, 0.2, 0.5)

    Examples::

        >>> InhibitorWords()(forward, input_ids, scores, target=1, replacement=unk_id)
    """

    name = "inhibitor_words"
    description = (
        "rise of the explained class's probability when the most negative tokens are "
        "replaced, mean over the bins"
    )
    undefined = "no inhibitors named"

    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        return super().removed(-attributions, attributable)

    def value(
        self,
        full: Answers,
        removed: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        return inhibitor_word_rise(full.p, removed.p, attributions, attributable)
