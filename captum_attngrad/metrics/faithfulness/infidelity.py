r"""Infidelity: do the scores add up to the effect of masking random tokens?"""

from torch import Tensor

from captum_attngrad.metrics.faithfulness.base import ErasureMetric
from captum_attngrad.metrics.functional.faithfulness import infidelity
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.metrics.functional.masks import (
    DEFAULT_SAMPLES,
    check_scores,
    random_masks,
)


class Infidelity(ErasureMetric):
    r"""
    Infidelity (Yeh et al. 2019) with masked tokens as the perturbation.

    .. math::
        \frac{1}{n} \sum_{k=1}^{n} \Big(\beta \sum_{i \in R_k} a_i
        - \big[p(c \mid x) - p(c \mid x \setminus R_k)\big]\Big)^2

    This is ``captum.metrics.infidelity`` with these arguments, computed so that a
    harness can run the perturbed texts together with those of other metrics:

    - inputs: one keep-factor for each token, all 1; the forward function puts
      ``replacement`` where the factor is 0 and returns class probabilities;
    - perturbation :math:`I`: 1 for the tokens of a random set :math:`R_k`, else 0,
      subtracted from the factors. The size of the set is uniform from 1 to the number
      of attributable tokens, then its tokens are drawn (:func:`random_masks`);
    - ``normalize``: :math:`\beta` is the factor that fits best, as in Captum, or 1.
      With it the unit of the scores does not matter. It may be *negative*, so a
      method with all signs wrong scores as well as a correct one; the polarity test
      tells those apart.

    Reference: Yeh et al. 2019, https://arxiv.org/abs/1901.09392

    Args:
        n_samples (int): Random sets for each text.
            Default: 20
        normalize (bool): See above.
            Default: True
        seed (int): Seed of the random sets.
            Default: 0

    Raises:
        ValueError: If ``n_samples`` is not positive.

    Examples::

        >>> Infidelity()(forward, input_ids, scores, target=1, replacement=unk_id)
    """

    name = "infidelity"
    higher_is_better = False
    value_range = (0.0, float("inf"))
    best_value = 0.0
    paper = "Yeh et al. 2019, On the (In)fidelity and Sensitivity of Explanations"
    description = (
        "mean squared difference between the sum of the scores of randomly masked "
        "tokens and the drop of the explained class's probability"
    )

    def __init__(
        self, n_samples: int = DEFAULT_SAMPLES, normalize: bool = True, seed: int = 0
    ) -> None:
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}; expected 1 or more.")
        self.n_samples = n_samples
        self.normalize = normalize
        self.seed = seed

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        check_scores(attributions, attributable)
        return random_masks(attributable, self.n_samples, self.seed)

    def value(
        self, full: Answers, masked: Answers, scores: Tensor, attributable: Tensor
    ) -> Tensor:
        return infidelity(
            scores,
            self.masks(scores, attributable),
            full.p.unsqueeze(1) - masked.p,
            self.normalize,
        )
