"""Additive attention, with its softmax written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdditiveAttention(nn.Module):
    r"""
    Additive attention (Bahdanau, Cho and Bengio, "Neural Machine Translation by
    Jointly Learning to Align and Translate", ICLR 2015,
    https://arxiv.org/abs/1409.0473).

    The score of a key is ``v · tanh(W key + U query + b)``; a softmax over the keys
    turns the scores into weights, and the result is the weighted sum of the keys.
    Without a query, as classifiers use it, the term ``U query`` is left out.

    Args:

        key_dim (int): Size of a key.
        query_dim (int, optional): Size of a query. With None, :meth:`forward` takes no
                    query.
                    Default: None
        attention_dim (int, optional): Size of the hidden layer (rows of ``W``). With
                    None it is ``key_dim``.
                    Default: None
    """

    def __init__(
        self,
        key_dim: int,
        query_dim: int | None = None,
        attention_dim: int | None = None,
    ) -> None:
        super().__init__()
        attention_dim = key_dim if attention_dim is None else attention_dim
        self.key_projection = nn.Linear(key_dim, attention_dim)
        self.query_projection = (
            None
            if query_dim is None
            else nn.Linear(query_dim, attention_dim, bias=False)
        )
        self.score = nn.Linear(attention_dim, 1, bias=False)

    def forward(
        self,
        keys: Tensor,
        query: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        projected_keys: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""
        Args:

            keys (Tensor): Shape (batch, length, key_dim).
            query (Tensor, optional): Shape (batch, query_dim), or (batch, queries,
                        query_dim) for several queries over the same keys. Needed if
                        and only if the module was made with ``query_dim``.
                        Default: None
            mask (Tensor, optional): bool, of shape (batch, length); False keeps a key
                        out: its weight is exactly 0. Each row must have a True.
                        Default: None
            projected_keys (Tensor, optional): ``key_projection(keys)``, of shape
                        (batch, length, attention_dim), for a decoder that asks again
                        and again about the same keys. With None it is computed.
                        Default: None

        Returns:
            **context**, **weights** (Tensor, Tensor):
            - **context**: Shape (batch, key_dim), or (batch, queries, key_dim) for
              several queries.
            - **weights**: Shape (batch, length), or (batch, queries, length); not
              negative, each row sums to 1.

        Raises:

            ValueError: If a query is missing or not expected, or ``mask`` has another
                        shape or type.
        """
        if (query is None) != (self.query_projection is None):
            raise ValueError(
                "This AdditiveAttention was made "
                + ("with" if query is None else "without")
                + " query_dim, so forward "
                + ("needs a query." if query is None else "takes no query.")
            )
        if mask is not None and (
            mask.dtype != torch.bool or mask.shape != keys.shape[:2]
        ):
            raise ValueError(
                f"mask must be bool of shape {tuple(keys.shape[:2])} (batch, length), "
                f"got {mask.dtype} of shape {tuple(mask.shape)}."
            )
        # (batch, queries, length, attention_dim), with one row of queries if there is
        # no query.
        if projected_keys is None:
            projected_keys = self.key_projection(keys)
        hidden = projected_keys.unsqueeze(1)
        if query is not None and self.query_projection is not None:
            rows = query.unsqueeze(1) if query.dim() == 2 else query
            hidden = hidden + self.query_projection(rows).unsqueeze(2)
        scores = self.score(torch.tanh(hidden)).squeeze(-1)
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
        weights = F.softmax(scores, dim=-1)
        context = torch.bmm(weights, keys)
        if query is None or query.dim() == 2:
            return context.squeeze(1), weights.squeeze(1)
        return context, weights
