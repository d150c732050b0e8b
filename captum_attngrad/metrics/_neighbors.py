r"""Texts in which words are replaced by their neighbors in the embedding space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from captum_attngrad.metrics.functional.neighbors import nearest_neighbors
from captum_attngrad.text.text_model import TextModel


def embedding_table(text_model: TextModel) -> Tensor:
    """The embeddings (ids, dim), or a TypeError if the module is not an
    ``nn.Embedding``."""
    if not isinstance(text_model.embedding, nn.Embedding):
        raise TypeError(
            f"The embedding of the text model is a "
            f"{type(text_model.embedding).__name__}; expected torch.nn.Embedding, "
            "whose rows are the embeddings of the ids."
        )
    return text_model.embedding.weight.detach()


def batch_neighbors(
    text_model: TextModel, input_ids: Tensor, n_neighbors: int
) -> Tensor:
    """Neighbors of every token of a batch, (batch, tokens, n_neighbors)."""
    table = embedding_table(text_model)
    distinct, index = input_ids.unique(return_inverse=True)
    neighbors = nearest_neighbors(table, distinct, n_neighbors, text_model.special_ids)
    return neighbors[index]


def random_substitutions(
    input_ids: Tensor,
    attributable: Tensor,
    neighbors: Tensor,
    n_substituted: Tensor,
    n_draws: int,
    seeds: Sequence[int],
) -> Tensor:
    r"""
    Texts in which random tokens are replaced by random neighbors.

    The draw depends on the text's seed and its number of attributable tokens, not on
    its batch.

    Args:
        input_ids (Tensor): Shape (batch, tokens).
        attributable (Tensor): Boolean, same shape: what may be replaced.
        neighbors (Tensor): Shape (batch, tokens, n_neighbors).
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
            neighbors.shape[2], (n_draws, n_tokens), generator=generator
        )
        options = neighbors[row, positions].expand(n_draws, -1, -1)
        words = options.gather(2, which.to(options).unsqueeze(2)).squeeze(2)
        result[row][:, positions] = torch.where(
            chosen.to(words.device), words, input_ids[row, positions]
        )
    return result


def first_valid(valid: Tensor, n_kept: int) -> tuple[Tensor, Tensor]:
    """Positions (batch, n_kept) of the first valid draws of each text, and which of
    them are really valid."""
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
