r"""How many tokens have to go until the model decides otherwise."""

from torch import Tensor

from captum_attngrad.metrics._precision import wide
from captum_attngrad.metrics.base import ErasureMetric
from captum_attngrad.metrics.removal import Answers, top_token_masks

DEFAULT_STEPS = 20


def decision_flip_fraction(
    margin: Tensor, removed: Tensor, attributable: Tensor
) -> Tensor:
    r"""
    Smallest share of the tokens whose removal changes the class.

    Args:
        margin (Tensor): Probability of the explained class minus that of the best other
            class, for variants that remove more and more; shape (batch, variants).
        removed (Tensor): Boolean, shape (batch, variants, tokens): what they remove.
        attributable (Tensor): Boolean, shape (batch, tokens): what may be removed.

    Returns:
        *Tensor*: Shape (batch,), in (0, 1]; 1 where no variant changes the class.
    """
    flipped = margin < 0
    n_tokens = attributable.sum(dim=1, keepdim=True)
    share = wide(removed.sum(dim=2)) / n_tokens
    return share.masked_fill(~flipped, 1.0).amin(dim=1)


class DecisionFlip(ErasureMetric):
    r"""
    Decision flip: the smallest fraction of the tokens, removed in the order of their
    scores, whose removal changes the class (Serrano and Smith 2019).

    - Order: highest signed score first, equal scores in the order of the text.
    - ``steps`` fractions 1/steps, 2/steps, ..., 1 are tried, each rounded up to whole
      tokens; so texts of up to ``steps`` tokens are tried token by token, and longer
      ones in that many steps.
    - The class has changed when another class is more probable than the explained one;
      a tie is not a change. When nothing changes it, not even taking everything, the
      value is 1, the worst.
    - Explain the predicted class: with another one the class "changes" at once.

    Reference: Serrano and Smith 2019, https://aclanthology.org/P19-1282

    Args:
        steps (int): How many fractions are tried.
            Default: 20

    Raises:
        ValueError: If ``steps`` is not positive.

    Examples::

        >>> DecisionFlip()(forward, input_ids, scores, target=predicted, replacement=0)
    """

    name = "decision_flip"
    needs_one_class = True
    higher_is_better = False
    value_range = (0.0, 1.0)
    best_value = 0.0
    paper = "Serrano and Smith 2019, Is Attention Interpretable?"
    description = (
        "smallest fraction of the tokens, in the order of their scores, whose removal "
        "changes the class (1 if none does)"
    )

    def __init__(self, steps: int = DEFAULT_STEPS) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; expected 1 or more.")
        self.steps = steps

    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        fractions = [(step + 1) / self.steps for step in range(self.steps)]
        return top_token_masks(attributions, attributable, fractions)

    def value(
        self,
        full: Answers,
        removed: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        return decision_flip_fraction(
            removed.margin, self.removed(attributions, attributable), attributable
        )
