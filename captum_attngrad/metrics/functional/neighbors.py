r"""Nearest neighbors in the embedding space."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_ROWS = 256


def nearest_neighbors(
    table: Tensor, ids: Tensor, n_neighbors: int, excluded: Sequence[int] = ()
) -> Tensor:
    r"""
    The ids whose embeddings have the largest cosine with those of given ids.

    Args:
        table (Tensor): Embeddings, shape (vocabulary, dim).
        ids (Tensor): The ids whose neighbors are wanted, shape (ids,).
        n_neighbors (int): Neighbors of each id.
        excluded (Sequence of int): Ids that are never neighbors: special tokens.
            Default: ()

    Returns:
        *Tensor*: int64, shape (ids, n_neighbors), nearest first. An id is not its own
        neighbor. The time grows with ids × vocabulary × dim.

    Raises:
        ValueError: If the vocabulary has too few other ids.

    Examples::

        >>> nearest_neighbors(model.embedding.weight, torch.tensor([17]), 5)
    """
    allowed = torch.ones(len(table), dtype=torch.bool, device=table.device)
    allowed[torch.as_tensor(list(excluded), device=table.device, dtype=torch.long)] = (
        False
    )
    if n_neighbors < 1 or int(allowed.sum()) <= n_neighbors:
        raise ValueError(
            f"n_neighbors is {n_neighbors} and {int(allowed.sum())} ids may be "
            "neighbors; expected at least 1 neighbor and more ids than neighbors."
        )
    unit = nn.functional.normalize(table.float(), dim=1)
    found = []
    for some in ids.split(_ROWS):
        cosine = unit[some] @ unit.T
        cosine[:, ~allowed] = -torch.inf
        cosine[torch.arange(len(some), device=some.device), some] = -torch.inf
        found.append(cosine.topk(n_neighbors, dim=1).indices)
    if not found:
        return ids.new_empty(0, n_neighbors)
    return torch.cat(found)
