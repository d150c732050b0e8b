r"""Faithfulness: does masking tokens affect the model as their scores say?"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.metrics.functional._precision import wide
from captum_attngrad.metrics.functional.masking import (
    DEFAULT_TOKENS_PER_BATCH,
    Target,
    masked_answers,
)
from captum_attngrad.metrics.functional.masks import (
    DEFAULT_BINS,
    all_but_top_token_masks,
    checked_attributable,
    top_token_masks,
    with_unmasked,
)


def mean_drop(p_full: Tensor, p_masked: Tensor) -> Tensor:
    r"""
    Mean drop of the explained class's probability when tokens are masked.

    Args:
        p_full (Tensor): Probability of the explained class, shape (batch,).
        p_masked (Tensor): The same for masked variants, shape (batch, variants).

    Returns:
        *Tensor*: Shape (batch,), from -1 to 1.
    """
    return (p_full.unsqueeze(1) - p_masked).mean(dim=1)


def _mean_drop_of_masks(
    masks: Tensor, forward_func: Callable[..., Tensor], inputs: Tensor, *arguments: Any
) -> Tensor:
    p = masked_answers(forward_func, inputs, with_unmasked(masks), *arguments).p
    return mean_drop(p[:, 0], p[:, 1:])


def comprehensiveness(
    forward_func: Callable[..., Tensor],
    inputs: Tensor,
    attributions: Tensor,
    target: Target,
    replacement: int,
    attributable: Tensor | None = None,
    additional_forward_args: Any = None,
    bins: Sequence[float] = DEFAULT_BINS,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
) -> Tensor:
    r"""
    Comprehensiveness: does the model need the tokens that the explanation puts first?

    .. math::
        \frac{1}{|B|} \sum_{b \in B} p(c \mid x) - p(c \mid x \setminus r_b)

    where :math:`r_b` is the top fraction :math:`b` of the tokens. This is the area over
    the perturbation curve as the authors' code computes it, the mean over the bins; the
    formula in their paper also counts the bin that masks nothing.

    - *Top* tokens: highest signed score first; equal scores in the order of the text.
      A fraction of n attributable tokens is rounded up, so at least one token is
      masked.
    - *Masked*: the token's id is replaced by ``replacement``; length and attention
      mask stay as they are.
    - Positions where ``attributable`` is False (padding, special tokens) are neither
      counted nor masked.

    Reference: DeYoung et al. 2020, https://aclanthology.org/2020.acl-main.408

    Args:
        forward_func (Callable): Maps token ids (batch, tokens), followed by
            ``additional_forward_args``, to class **probabilities** (batch, classes).
        inputs (Tensor): Token ids, shape (batch, tokens).
        attributions (Tensor): Scores, shape (batch, tokens); positive supports.
        target (int, Sequence of int or Tensor): The explained class, for all or for
            each example.
        replacement (int): Token id put in place of a masked token (mask, unknown or
            padding token).
        attributable (Tensor, optional): Boolean, shape (batch, tokens): True where a
            token may be masked. None means everywhere.
            Default: None
        additional_forward_args (Any, optional): Further arguments of ``forward_func``,
            as in Captum, such as the attention mask.
            Default: None
        bins (Sequence of float): Fractions of the tokens, each in (0, 1].
            Default: (0.05, 0.1, 0.2, 0.5)
        max_tokens_per_batch (int): Tokens that go through ``forward_func`` in one call.
            Default: 32768

    Returns:
        *Tensor*: Shape (batch,), differences of probabilities, between -1 and 1; higher
        is better.

    Raises:
        ValueError: On shapes that do not agree, scores that are not finite, examples
            without attributable tokens, a target or fraction out of range, or outputs
            that are not probabilities.
        TypeError: If ``attributable`` is not boolean or ``target`` does not hold
            integers.

    Examples::

        >>> forward = lambda ids, mask: model(ids, mask).softmax(-1)
        >>> scores = AttentionGradient(model).attribute(
        ...     input_ids, target=1, additional_forward_args=(attention_mask,)
        ... )
        >>> comprehensiveness(
        ...     forward, input_ids, scores, target=1, replacement=unk_id,
        ...     attributable=attention_mask.bool(),
        ...     additional_forward_args=(attention_mask,),
        ... )  # (batch,)
    """
    attributable = checked_attributable(inputs, attributions, attributable)
    masks = top_token_masks(attributions, attributable, bins)
    return _mean_drop_of_masks(
        masks,
        forward_func,
        inputs,
        target,
        replacement,
        additional_forward_args,
        max_tokens_per_batch,
    )


def sufficiency(
    forward_func: Callable[..., Tensor],
    inputs: Tensor,
    attributions: Tensor,
    target: Target,
    replacement: int,
    attributable: Tensor | None = None,
    additional_forward_args: Any = None,
    bins: Sequence[float] = DEFAULT_BINS,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
) -> Tensor:
    r"""
    Sufficiency: are the tokens that the explanation puts first enough for the model?

    .. math::
        \frac{1}{|B|} \sum_{b \in B} p(c \mid x) - p(c \mid r_b)

    where in :math:`r_b` every attributable token but the top fraction :math:`b` has
    been masked. Otherwise as in :func:`comprehensiveness`.

    Reference: DeYoung et al. 2020, https://aclanthology.org/2020.acl-main.408

    Args:
        forward_func (Callable): Maps token ids (batch, tokens), followed by
            ``additional_forward_args``, to class **probabilities** (batch, classes).
        inputs (Tensor): Token ids, shape (batch, tokens).
        attributions (Tensor): Scores, shape (batch, tokens); positive supports.
        target (int, Sequence of int or Tensor): The explained class, for all or for
            each example.
        replacement (int): Token id put in place of a masked token.
        attributable (Tensor, optional): Boolean, shape (batch, tokens): True where a
            token may be masked. None means everywhere.
            Default: None
        additional_forward_args (Any, optional): Further arguments of ``forward_func``.
            Default: None
        bins (Sequence of float): Fractions of the tokens, each in (0, 1].
            Default: (0.05, 0.1, 0.2, 0.5)
        max_tokens_per_batch (int): Tokens that go through ``forward_func`` in one call.
            Default: 32768

    Returns:
        *Tensor*: Shape (batch,), differences of probabilities, between -1 and 1; lower
        is better.

    Raises:
        ValueError, TypeError: As :func:`comprehensiveness`.

    Examples::

        >>> sufficiency(forward, input_ids, scores, target=1, replacement=unk_id)
    """
    attributable = checked_attributable(inputs, attributions, attributable)
    masks = all_but_top_token_masks(attributions, attributable, bins)
    return _mean_drop_of_masks(
        masks,
        forward_func,
        inputs,
        target,
        replacement,
        additional_forward_args,
        max_tokens_per_batch,
    )


def decision_flip_fraction(
    margin: Tensor, masks: Tensor, attributable: Tensor
) -> Tensor:
    r"""
    Smallest share of the tokens that must be masked to change the class.

    Args:
        margin (Tensor): Probability of the explained class minus that of the best other
            class, for variants that mask more and more tokens; shape (batch, variants).
        masks (Tensor): Boolean, shape (batch, variants, tokens): the masked tokens.
        attributable (Tensor): Boolean, shape (batch, tokens): what may be masked.

    Returns:
        *Tensor*: Shape (batch,), in (0, 1]; 1 where no variant changes the class.
    """
    flipped = margin < 0
    n_tokens = attributable.sum(dim=1, keepdim=True)
    share = wide(masks.sum(dim=2)) / n_tokens
    return share.masked_fill(~flipped, 1.0).amin(dim=1)


def polarity_violation(strongest: Tensor, effect: Tensor) -> Tensor:
    r"""
    1 where the strongest score and the effect of its token have opposite signs.

    Args:
        strongest (Tensor): The score of largest magnitude, shape (batch,).
        effect (Tensor): Probability of the explained class minus that with the token
            masked, same shape.

    Returns:
        *Tensor*: Shape (batch,): 1 violation, 0 agreement, NaN where either is 0.
    """
    signs = torch.sign(strongest).to(effect.dtype) * torch.sign(effect)
    return ((1 - signs) / 2).masked_fill(signs == 0, torch.nan)


def infidelity(
    attributions: Tensor, masks: Tensor, effects: Tensor, normalize: bool = True
) -> Tensor:
    r"""
    Mean squared difference between the sum of the masked tokens' scores and the effect
    of masking them.

    Args:
        attributions (Tensor): Scores, shape (batch, tokens).
        masks (Tensor): Boolean, shape (batch, samples, tokens).
        effects (Tensor): Probability of the explained class minus that with the tokens
            masked, shape (batch, samples).
        normalize (bool): Whether the scores are first multiplied by the factor that
            fits the effects best, one for each text, as Captum does with its argument
            of that name.
            Default: True

    Returns:
        *Tensor*: Shape (batch,), 0 or more.
    """
    scores = attributions.to(effects.dtype).unsqueeze(1)
    sums = scores.masked_fill(~masks, 0).sum(dim=2)
    if normalize:
        squares = sums.square().sum(dim=1, keepdim=True)
        products = (sums * effects).sum(dim=1, keepdim=True)
        sums = sums * products / torch.where(squares > 0, squares, 1)
    return (sums - effects).square().mean(dim=1)


def positive_word_drop(
    p_full: Tensor, p_masked: Tensor, attributions: Tensor, attributable: Tensor
) -> Tensor:
    r"""
    Mean drop of the explained class's probability when positive words are masked.

    Args:
        p_full (Tensor): Probability of the explained class, shape (batch,).
        p_masked (Tensor): The same with the words masked, shape (batch, variants).
        attributions (Tensor): Scores, shape (batch, tokens).
        attributable (Tensor): Boolean, same shape.

    Returns:
        *Tensor*: Shape (batch,), from -1 to 1; NaN where no score is positive.
    """
    named = ((attributions > 0) & attributable).any(dim=1)
    return mean_drop(p_full, p_masked).masked_fill(~named, torch.nan)


def inhibitor_word_rise(
    p_full: Tensor, p_masked: Tensor, attributions: Tensor, attributable: Tensor
) -> Tensor:
    r"""
    Mean rise of the explained class's probability when inhibitor words are masked.

    Args:
        p_full (Tensor): Probability of the explained class, shape (batch,).
        p_masked (Tensor): The same with the words masked, shape (batch, variants).
        attributions (Tensor): Scores, shape (batch, tokens).
        attributable (Tensor): Boolean, same shape.

    Returns:
        *Tensor*: Shape (batch,), from -1 to 1; NaN where no score is negative.
    """
    return -positive_word_drop(p_full, p_masked, -attributions, attributable)
