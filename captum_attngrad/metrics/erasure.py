r"""Comprehensiveness and sufficiency (DeYoung et al. 2020)."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from captum_attngrad.metrics.base import DEFAULT_BINS, ErasureMetric
from captum_attngrad.metrics.removal import (
    DEFAULT_TOKENS_PER_BATCH,
    Answers,
    Target,
    check_fractions,
    top_token_masks,
)


class _MeanDrop(ErasureMetric):
    """Mean drop of p over fractions of the attributable tokens."""

    value_range = (-1.0, 1.0)
    paper = (
        "DeYoung et al. 2020, ERASER: A Benchmark to Evaluate Rationalized NLP Models"
    )

    def __init__(self, bins: Sequence[float] = DEFAULT_BINS) -> None:
        self.bins = check_fractions(bins)

    def value(
        self,
        full: Answers,
        removed: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        return (full.p.unsqueeze(1) - removed.p).mean(dim=1)


class Comprehensiveness(_MeanDrop):
    r"""
    Drop of the explained class's probability when the top-scored tokens are replaced.

    See :func:`comprehensiveness`. Higher is better; 1 is the most that a probability
    can fall, and a value below 0 says that the class became *more* probable.
    """

    name = "comprehensiveness"
    higher_is_better = True
    best_value = 1.0
    description = (
        "drop of the explained class's probability when the top-scored tokens are "
        "replaced, mean over the bins"
    )

    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        return top_token_masks(attributions, attributable, self.bins)


class Sufficiency(_MeanDrop):
    r"""
    Drop of the explained class's probability when all but the top-scored tokens are
    replaced.

    See :func:`sufficiency`. Lower is better: at 0 the top tokens alone convince the
    model as much as the whole text, and below 0 they convince it more.
    """

    name = "sufficiency"
    higher_is_better = False
    best_value = -1.0
    description = (
        "drop of the explained class's probability when all but the top-scored tokens "
        "are replaced, mean over the bins"
    )

    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        kept = top_token_masks(attributions, attributable, self.bins)
        return attributable.unsqueeze(1) & ~kept


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
    Comprehensiveness: were the tokens that the explanation puts first really needed?

    .. math::
        \frac{1}{|B|} \sum_{b \in B} p(c \mid x) - p(c \mid x \setminus r_b)

    where :math:`r_b` is the top fraction :math:`b` of the tokens. This is the area over
    the perturbation curve as the authors' code computes it, the mean over the bins; the
    formula in their paper also counts the bin that removes nothing.

    - *Top* tokens: highest signed score first; equal scores in the order of the text.
      A fraction of n attributable tokens is rounded up, so at least one token goes.
    - *Removed*: the token's id is replaced by ``replacement``; length and attention
      mask stay as they are.
    - Positions where ``attributable`` is False (padding, special tokens) are neither
      counted nor replaced.

    Reference: DeYoung et al. 2020, https://aclanthology.org/2020.acl-main.408

    Args:
        forward_func (Callable): Maps token ids (batch, tokens), followed by
            ``additional_forward_args``, to class **probabilities** (batch, classes).
        inputs (Tensor): Token ids, shape (batch, tokens).
        attributions (Tensor): Scores, shape (batch, tokens); positive supports.
        target (int, Sequence of int or Tensor): The explained class, for all or for
            each example.
        replacement (int): Token id put in place of a removed token (mask, unknown or
            padding token).
        attributable (Tensor, optional): Boolean, shape (batch, tokens): True where a
            token may be removed. None means everywhere.
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
        TypeError: If ``attributable`` is not boolean or ``target`` holds no integers.

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
    return Comprehensiveness(bins)(
        forward_func,
        inputs,
        attributions,
        target,
        replacement,
        attributable,
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
    Sufficiency: do the tokens that the explanation puts first convince the model alone?

    .. math::
        \frac{1}{|B|} \sum_{b \in B} p(c \mid x) - p(c \mid r_b)

    where in :math:`r_b` every attributable token but the top fraction :math:`b` has
    been replaced. All else is as in :func:`comprehensiveness`.

    Reference: DeYoung et al. 2020, https://aclanthology.org/2020.acl-main.408

    Args:
        forward_func (Callable): Maps token ids (batch, tokens), followed by
            ``additional_forward_args``, to class **probabilities** (batch, classes).
        inputs (Tensor): Token ids, shape (batch, tokens).
        attributions (Tensor): Scores, shape (batch, tokens); positive supports.
        target (int, Sequence of int or Tensor): The explained class, for all or for
            each example.
        replacement (int): Token id put in place of a removed token.
        attributable (Tensor, optional): Boolean, shape (batch, tokens): True where a
            token may be removed. None means everywhere.
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
    return Sufficiency(bins)(
        forward_func,
        inputs,
        attributions,
        target,
        replacement,
        attributable,
        additional_forward_args,
        max_tokens_per_batch,
    )
