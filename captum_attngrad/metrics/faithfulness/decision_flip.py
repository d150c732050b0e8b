r"""How many tokens must be masked to change the predicted class."""

from torch import Tensor

from captum_attngrad.metrics.faithfulness.base import ErasureMetric
from captum_attngrad.metrics.functional.faithfulness import decision_flip_fraction
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.metrics.functional.masks import top_token_masks

DEFAULT_STEPS = 20


class DecisionFlip(ErasureMetric):
    r"""
    Decision flip: the smallest fraction of the tokens, in the order of their scores,
    that must be masked to change the class (Serrano and Smith 2019).

    - Order: highest signed score first, equal scores in the order of the text.
    - ``steps`` fractions 1/steps, 2/steps, ..., 1 are tried, each rounded up to whole
      tokens; so texts of up to ``steps`` tokens are tried token by token, and longer
      ones in that many steps.
    - The class has changed when another class is more probable than the explained one;
      a tie is not a change. If even masking everything does not change it, the
      value is 1, the worst.
    - Explain the predicted class: any other has "changed" from the start.

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
        "smallest fraction of the tokens, in the order of their scores, that must be "
        "masked to change the class (1 if none does)"
    )

    def __init__(self, steps: int = DEFAULT_STEPS) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; expected 1 or more.")
        self.steps = steps

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        fractions = [(step + 1) / self.steps for step in range(self.steps)]
        return top_token_masks(attributions, attributable, fractions)

    def value(
        self, full: Answers, masked: Answers, scores: Tensor, attributable: Tensor
    ) -> Tensor:
        return decision_flip_fraction(
            masked.margin, self.masks(scores, attributable), attributable
        )
