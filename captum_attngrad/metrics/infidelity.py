r"""Infidelity: do the scores add up to what removing random tokens does?"""

import torch
from torch import Tensor

from captum_attngrad.metrics.base import ErasureMetric
from captum_attngrad.metrics.removal import Answers, check_scores

DEFAULT_SAMPLES = 20


def random_removals(
    attributable: Tensor, n_samples: int = DEFAULT_SAMPLES, seed: int = 0
) -> Tensor:
    r"""
    Random sets of tokens: first how many, evenly from 1 to all, then which.

    What is drawn for a text depends on the seed and on its number of attributable
    tokens, not on the batch it is in.

    Args:
        attributable (Tensor): Boolean, shape (batch, tokens).
        n_samples (int): Sets for each text.
            Default: 20
        seed (int): Seed.
            Default: 0

    Returns:
        *Tensor*: Boolean, shape (batch, n_samples, tokens), True in the set; at least
        one token in each.
    """
    result = torch.zeros(
        attributable.shape[0], n_samples, attributable.shape[1], dtype=torch.bool
    )
    drawn: dict[int, Tensor] = {}
    for row, chosen in enumerate(attributable.cpu()):
        n_tokens = int(chosen.sum())
        if n_tokens not in drawn:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + n_tokens)
            sizes = torch.randint(1, n_tokens + 1, (n_samples, 1), generator=generator)
            order = torch.rand(n_samples, n_tokens, generator=generator).argsort(dim=1)
            drawn[n_tokens] = order.argsort(dim=1) < sizes
        result[row, :, chosen] = drawn[n_tokens]
    return result.to(attributable.device)


def removal_infidelity(
    attributions: Tensor, removed: Tensor, effects: Tensor, normalize: bool = True
) -> Tensor:
    r"""
    Mean squared difference between the sum of the removed tokens' scores and what
    their removal did.

    Args:
        attributions (Tensor): Scores, shape (batch, tokens).
        removed (Tensor): Boolean, shape (batch, samples, tokens).
        effects (Tensor): p of the explained class minus p without the tokens, shape
            (batch, samples).
        normalize (bool): Whether the scores are first multiplied by the factor that
            fits the effects best, one for each text, as Captum does with its argument
            of that name.
            Default: True

    Returns:
        *Tensor*: Shape (batch,), 0 or more.
    """
    scores = attributions.to(effects.dtype).unsqueeze(1)
    sums = scores.masked_fill(~removed, 0).sum(dim=2)
    if normalize:
        squares = sums.square().sum(dim=1, keepdim=True)
        products = (sums * effects).sum(dim=1, keepdim=True)
        sums = sums * products / torch.where(squares > 0, squares, 1)
    return (sums - effects).square().mean(dim=1)


class Infidelity(ErasureMetric):
    r"""
    Infidelity (Yeh et al. 2019) with removed tokens as the perturbation.

    .. math::
        \frac{1}{n} \sum_{k=1}^{n} \Big(\beta \sum_{i \in R_k} a_i
        - \big[p(c \mid x) - p(c \mid x \setminus R_k)\big]\Big)^2

    This is ``captum.metrics.infidelity`` with these arguments, computed so that a
    harness can run the perturbed texts together with those of other metrics:

    - inputs: one keep-factor for each token, all 1; the forward function puts
      ``replacement`` where the factor is 0 and returns class probabilities;
    - perturbation :math:`I`: 1 for the tokens of a random set :math:`R_k`, else 0,
      taken off the factors. The size of the set is uniform from 1 to the number of
      attributable tokens, then its tokens are drawn (:func:`random_removals`);
    - ``normalize``: :math:`\beta` is the factor that fits best, as in Captum, or 1.
      With it the unit of the scores does not matter; a method that is right about
      directions up to a factor, *negative ones included*, is then not told apart
      from a right one. That is what the polarity test is for.

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
        "mean squared difference between the sum of the scores of randomly removed "
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

    def removed(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        check_scores(attributions, attributable)
        return random_removals(attributable, self.n_samples, self.seed)

    def value(
        self,
        full: Answers,
        removed: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        return removal_infidelity(
            attributions,
            self.removed(attributions, attributable),
            full.p.unsqueeze(1) - removed.p,
            self.normalize,
        )
