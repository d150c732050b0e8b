r"""One vector for a text, from the scores of its tokens."""

import torch
from torch import Tensor

from captum_attngrad.metrics.functional.masks import check_scores

VECTORS = ("embedding", "bag")
# Enough buckets that two words of a text rarely share one.
DEFAULT_BUCKETS = 1024
_SEED = 20_240_229


def check_vector(vector: str) -> None:
    """A ValueError that quotes a name that is not one of VECTORS."""
    if vector not in VECTORS:
        raise ValueError(
            f"vector is {vector!r}; expected one of: {', '.join(VECTORS)}."
        )


def _bag(weights: Tensor, input_ids: Tensor, n_ids: int, buckets: int) -> Tensor:
    # Signed feature hashing: the expected inner product is that of the full bags.
    generator = torch.Generator().manual_seed(_SEED)
    bucket = torch.randint(0, buckets, (n_ids,), generator=generator)
    sign = torch.randint(0, 2, (n_ids,), generator=generator) * 2 - 1
    bucket, sign = bucket.to(input_ids.device), sign.to(weights)
    bag = weights.new_zeros(len(weights), buckets)
    return bag.scatter_add_(1, bucket[input_ids], weights * sign[input_ids])


def score_vectors(
    attributions: Tensor,
    attributable: Tensor,
    input_ids: Tensor,
    table: Tensor,
    vector: str = "embedding",
    buckets: int = DEFAULT_BUCKETS,
) -> Tensor:
    r"""
    One vector for each text: the mean of its tokens, weighted by their scores.

    .. math::
        u = \frac{\sum_i a_i e_i}{\sum_i |a_i|}

    where :math:`e_i` is the embedding of token :math:`i` ("embedding") or the unit
    vector of its id ("bag"). The bag has a fixed number of buckets, however large the
    vocabulary is: each id has a fixed random bucket and sign (feature
    hashing, Weinberger et al. 2009, https://arxiv.org/abs/0902.2206), which keeps inner
    products in expectation. With all scores 0 the vector is 0.

    Args:
        attributions (Tensor): Scores, shape (batch, tokens).
        attributable (Tensor): Boolean, same shape: the tokens that count.
        input_ids (Tensor): Token ids, same shape.
        table (Tensor): Embeddings, shape (ids, dim).
        vector (str): "embedding" or "bag".
            Default: "embedding"
        buckets (int): Dimension of the bag.
            Default: 1024

    Returns:
        *Tensor*: Shape (batch, dim) or (batch, buckets), in the dtype of ``table``.

    Raises:
        ValueError: On an unknown ``vector``, shapes that do not agree, scores that are
            not finite, or a text without attributable tokens.
    """
    check_vector(vector)
    check_scores(attributions, attributable)
    if input_ids.shape != attributions.shape:
        raise ValueError(
            f"input_ids has shape {tuple(input_ids.shape)} and attributions has shape "
            f"{tuple(attributions.shape)}; expected the same shape."
        )
    weights = attributions.masked_fill(~attributable, 0)
    # Divided by the largest first, so that small scores do not underflow in the sum.
    largest = weights.abs().amax(dim=1, keepdim=True)
    weights = weights / torch.where(largest > 0, largest, 1)
    total = weights.abs().sum(dim=1, keepdim=True)
    table = table.detach()
    weights = (weights / torch.where(total > 0, total, 1)).to(table)
    if vector == "bag":
        return _bag(weights, input_ids, len(table), buckets)
    return torch.einsum("bt,btd->bd", weights, table[input_ids])
