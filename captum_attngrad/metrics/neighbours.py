r"""Words that are close to each other in the embedding space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_attngrad.text.text_model import TextModel

_ROWS = 256


def embedding_table(text_model: TextModel) -> Tensor:
    """The embeddings (ids, dim), or a TypeError if ids are embedded otherwise."""
    if not isinstance(text_model.embedding, nn.Embedding):
        raise TypeError(
            f"The embedding of the text model is a "
            f"{type(text_model.embedding).__name__}; expected torch.nn.Embedding, "
            "whose rows are the embeddings of the ids."
        )
    return text_model.embedding.weight.detach()


def nearest_neighbours(
    table: Tensor, ids: Tensor, n_neighbours: int, excluded: Sequence[int] = ()
) -> Tensor:
    r"""
    The ids whose embeddings have the largest cosine with those of given ids.

    Args:
        table (Tensor): Embeddings, shape (vocabulary, dim).
        ids (Tensor): The ids whose neighbours are asked for, shape (ids,).
        n_neighbours (int): How many neighbours of each.
        excluded (Sequence of int): Ids that are nobody's neighbour: special tokens.
            Default: ()

    Returns:
        *Tensor*: int64, shape (ids, n_neighbours), nearest first. No id is its own
        neighbour. The time grows with ids × vocabulary × dim.

    Raises:
        ValueError: If the vocabulary has fewer than ``n_neighbours`` others.

    Examples::

        >>> nearest_neighbours(model.embedding.weight, torch.tensor([17]), 5)
    """
    allowed = torch.ones(len(table), dtype=torch.bool, device=table.device)
    allowed[torch.as_tensor(list(excluded), device=table.device, dtype=torch.long)] = (
        False
    )
    if n_neighbours < 1 or int(allowed.sum()) <= n_neighbours:
        raise ValueError(
            f"n_neighbours is {n_neighbours} and {int(allowed.sum())} ids may be "
            "neighbours; expected at least 1 neighbour and more ids than neighbours."
        )
    unit = nn.functional.normalize(table.float(), dim=1)
    found = []
    for some in ids.split(_ROWS):
        cosine = unit[some] @ unit.T
        cosine[:, ~allowed] = -torch.inf
        cosine[torch.arange(len(some), device=some.device), some] = -torch.inf
        found.append(cosine.topk(n_neighbours, dim=1).indices)
    if not found:
        return ids.new_empty(0, n_neighbours)
    return torch.cat(found)


def batch_neighbours(
    text_model: TextModel, input_ids: Tensor, n_neighbours: int
) -> Tensor:
    """Neighbours of every token of a batch, (batch, tokens, n_neighbours)."""
    table = embedding_table(text_model)
    distinct, place = input_ids.unique(return_inverse=True)
    neighbours = nearest_neighbours(
        table, distinct, n_neighbours, text_model.special_ids
    )
    return neighbours[place]


def random_substitutions(
    input_ids: Tensor,
    attributable: Tensor,
    neighbours: Tensor,
    n_substituted: Tensor,
    n_draws: int,
    seeds: Sequence[int],
) -> Tensor:
    r"""
    Texts in which random tokens are replaced by random neighbours.

    What is drawn for a text depends on its seed and its number of attributable tokens,
    not on its batch.

    Args:
        input_ids (Tensor): Shape (batch, tokens).
        attributable (Tensor): Boolean, same shape: what may be replaced.
        neighbours (Tensor): Shape (batch, tokens, n_neighbours).
        n_substituted (Tensor): How many tokens of each text are replaced, (batch,).
        n_draws (int): Variants of each text.
        seeds (Sequence of int): A seed for each text.

    Returns:
        *Tensor*: Token ids, shape (batch, n_draws, tokens).
    """
    result = input_ids.unsqueeze(1).repeat(1, n_draws, 1)
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        positions = attributable[row].nonzero().squeeze(1)
        n_tokens = len(positions)
        order = torch.rand(n_draws, n_tokens, generator=generator).argsort(dim=1)
        chosen = order.argsort(dim=1) < int(n_substituted[row])
        which = torch.randint(
            neighbours.shape[2], (n_draws, n_tokens), generator=generator
        )
        options = neighbours[row, positions].expand(n_draws, -1, -1)
        words = options.gather(2, which.to(options).unsqueeze(2)).squeeze(2)
        result[row][:, positions] = torch.where(
            chosen.to(words.device), words, input_ids[row, positions]
        )
    return result


def first_valid(valid: Tensor, n_kept: int) -> tuple[Tensor, Tensor]:
    """Places (batch, n_kept) of the first valid draws of each text, and which of the
    places are really valid."""
    order = valid.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
    order = order[:, :n_kept]
    return order, valid.gather(1, order)


def answers_of_variants(
    text_model: TextModel, variants: Tensor, *forward_args: Tensor
) -> Tensor:
    """Probabilities (batch, variants, classes) of texts (batch, variants, tokens), from
    the batch's ``forward_args``."""
    with torch.no_grad():
        each = [
            text_model.probabilities(ids, *forward_args)
            for ids in variants.unbind(dim=1)
        ]
    return torch.stack(each, dim=1)
