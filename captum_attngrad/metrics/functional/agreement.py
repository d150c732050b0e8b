r"""Agreement of two explanations of the same text: ranks, directions, top tokens."""

from collections.abc import Callable

import torch
from torch import Tensor

from captum_attngrad.metrics.functional._precision import wide
from captum_attngrad.metrics.functional.masks import check_scores, top_token_masks


def _checked_pair(
    first: Tensor, second: Tensor, attributable: Tensor
) -> tuple[Tensor, Tensor]:
    """Both as float64, 0 where not attributable."""
    if first.shape != second.shape:
        raise ValueError(
            f"The compared scores have the shapes {tuple(first.shape)} and "
            f"{tuple(second.shape)}; expected the same shape (batch, tokens)."
        )
    for scores in (first, second):
        check_scores(scores, attributable)
    return (
        wide(first).masked_fill(~attributable, 0),
        wide(second).masked_fill(~attributable, 0),
    )


def average_ranks(scores: Tensor, attributable: Tensor) -> Tensor:
    r"""
    Rank of each token's score within its text, 1 for the lowest; equal scores share the
    mean of their ranks.

    Args:
        scores (Tensor): Shape (batch, tokens).
        attributable (Tensor): Boolean, same shape: the tokens that are ranked.

    Returns:
        *Tensor*: Ranks, shape (batch, tokens), 0 where not attributable.

    Examples::

        >>> average_ranks(torch.tensor([[5.0, 2.0, 5.0]]), torch.ones(1, 3).bool())
        tensor([[2.5000, 1.0000, 2.5000]], dtype=torch.float64)
    """
    filled = scores.masked_fill(~attributable, torch.inf)
    in_order = filled.sort(dim=1).values
    below = torch.searchsorted(in_order, filled.contiguous())
    up_to = torch.searchsorted(in_order, filled.contiguous(), right=True)
    return (wide(below + up_to + 1) / 2).masked_fill(~attributable, 0)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    # Scaled first, so that squares of very small or large scores stay in range.
    norms = []
    for scores in (first, second):
        largest = scores.abs().amax(dim=1, keepdim=True)
        scaled = scores / torch.where(largest > 0, largest, 1)
        norm = scaled.norm(dim=1, keepdim=True)
        norms.append(torch.where(norm > 0, scaled / norm, torch.nan))
    return (norms[0] * norms[1]).sum(dim=1).clamp(-1, 1)


def cosine_similarity(first: Tensor, second: Tensor, attributable: Tensor) -> Tensor:
    r"""
    Cosine of the angle between two explanations of each text.

    Args:
        first (Tensor): Scores, shape (batch, tokens).
        second (Tensor): Scores, same shape.
        attributable (Tensor): Boolean, same shape: the tokens that are compared.

    Returns:
        *Tensor*: Shape (batch,), from -1 to 1; NaN where one of the two is 0
        for all tokens.

    Raises:
        ValueError: On shapes that do not agree, scores that are not finite, or a text
            without attributable tokens.
        TypeError: If ``attributable`` is not boolean.
    """
    return _cosine(*_checked_pair(first, second, attributable))


def spearman(first: Tensor, second: Tensor, attributable: Tensor) -> Tensor:
    r"""
    Spearman's rank correlation between two explanations of each text: Pearson's
    correlation of the ranks, equal scores sharing the mean of their ranks.

    Args:
        first (Tensor): Scores, shape (batch, tokens).
        second (Tensor): Scores, same shape.
        attributable (Tensor): Boolean, same shape: the tokens that are compared.

    Returns:
        *Tensor*: Shape (batch,), from -1 to 1; NaN where one of the two gives all
        tokens the same score (so always with a single token).

    Raises:
        ValueError, TypeError: As :func:`cosine_similarity`.
    """
    first, second = _checked_pair(first, second, attributable)
    middle = (attributable.sum(dim=1, keepdim=True) + 1) / 2
    centered = (
        (average_ranks(scores, attributable) - middle).masked_fill(~attributable, 0)
        for scores in (first, second)
    )
    return _cosine(*centered)


def kendall_tau_b(first: Tensor, second: Tensor, attributable: Tensor) -> Tensor:
    r"""
    Kendall's :math:`\tau_b` between two explanations of each text.

    .. math::
        \tau_b = \frac{C - D}{\sqrt{(C + D + T_1)(C + D + T_2)}}

    with :math:`C` concordant and :math:`D` discordant pairs of tokens, and
    :math:`T_1`, :math:`T_2` pairs that are tied only in the first or only in the second
    explanation.

    Args:
        first (Tensor): Scores, shape (batch, tokens).
        second (Tensor): Scores, same shape.
        attributable (Tensor): Boolean, same shape: the tokens that are compared.

    Returns:
        *Tensor*: Shape (batch,), from -1 to 1; NaN where one of the two gives all
        tokens the same score (so always with a single token).

    Raises:
        ValueError, TypeError: As :func:`cosine_similarity`.
    """
    first, second = _checked_pair(first, second, attributable)
    result = first.new_empty(len(first))
    # One text at a time: the pairs of a text take (tokens, tokens), those of a batch
    # would take that times the batch.
    for row, chosen in enumerate(attributable):
        a, b = (scores[row, chosen] for scores in (first, second))
        sign_a = torch.sign(a.unsqueeze(0) - a.unsqueeze(1))
        sign_b = torch.sign(b.unsqueeze(0) - b.unsqueeze(1))
        untied = sign_a.abs().sum() * sign_b.abs().sum()
        result[row] = (sign_a * sign_b).sum() / untied.sqrt()  # 0 / 0 is NaN
    return result


def top_k_overlap(
    first: Tensor, second: Tensor, attributable: Tensor, fraction: float = 0.2
) -> Tensor:
    r"""
    Share of the top tokens that two explanations of each text have in common.

    Args:
        first (Tensor): Scores, shape (batch, tokens).
        second (Tensor): Scores, same shape.
        attributable (Tensor): Boolean, same shape: the tokens that are compared.
        fraction (float): How many tokens are top tokens, as a fraction of the
            attributable tokens, rounded up, in (0, 1].
            Default: 0.2

    Returns:
        *Tensor*: Shape (batch,), from 0 to 1. Ties go to the earlier token in both.

    Raises:
        ValueError, TypeError: As :func:`cosine_similarity`, and on a fraction out of
            range.
    """
    first, second = _checked_pair(first, second, attributable)
    tops = [
        top_token_masks(scores, attributable, [fraction])[:, 0]
        for scores in (first, second)
    ]
    common = (tops[0] & tops[1]).sum(dim=1)
    return common.to(first) / tops[0].sum(dim=1)


#: Measures of agreement by name; each maps (first, second, attributable) to (batch,).
AGREEMENTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "spearman": spearman,
    "cosine": cosine_similarity,
    "top_k": top_k_overlap,
}


def mean_agreement(
    before: Tensor,
    again: Tensor,
    attributable: Tensor,
    valid: Tensor,
    measure: str = "spearman",
) -> Tensor:
    r"""
    Mean agreement of the scores before with those after each valid variant.

    Args:
        before (Tensor): Scores, shape (batch, tokens).
        again (Tensor): Scores, shape (batch, variants, tokens).
        attributable (Tensor): Boolean, shape (batch, tokens).
        valid (Tensor): Boolean, shape (batch, variants): which variants count.
        measure (str): "spearman", "cosine" or "top_k" (the top 20%).
            Default: "spearman"

    Returns:
        *Tensor*: Shape (batch,); NaN where no variant is valid, or the measure is
        undefined for all of them.
    """
    function = AGREEMENTS[measure]
    each = torch.stack(
        [function(before, scores, attributable) for scores in again.unbind(dim=1)],
        dim=1,
    )
    return each.masked_fill(~valid, torch.nan).nanmean(dim=1)
