"""A bidirectional LSTM text classifier with one additive attention."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from captum_attngrad.metrics.resilience.recurrent import (
    RecurrentAttention,
    register_recurrent_attention,
)
from captum_attngrad.models._recurrent import run_packed
from captum_attngrad.models.attention import AdditiveAttention

_EMBEDDING_STD = 0.3


class AttentionLSTMClassifier(nn.Module):
    r"""
    Text classifier: embedding, bidirectional LSTM, additive attention over its states,
    linear layer.

    A sentence consists of the positions that the mask allows. The others are taken out
    before the LSTM runs, wherever they are, so neither the amount of padding nor its
    side changes the result, and masking a word out deletes it.

    The parts are the submodules ``embedding``, ``lstm``, ``attention`` (the layer to
    pass to attention-based attribution) and ``classifier``.

    Args:

        vocab_size (int): Number of token ids.
        embedding_dim (int, optional): Size of a word vector.
                    Default: 100
        hidden_size (int, optional): Size of the LSTM state in one direction; attention
                    sees both directions, ``2 * hidden_size`` numbers a token.
                    Default: 64
        num_classes (int, optional): Number of logits.
                    Default: 2
        padding_idx (int, optional): The id of padding. Its embedding is 0 and does not
                    learn.
                    Default: 0
        dropout (float, optional): Probability with which, during training, a number
                    of the word vectors and of the attended state is dropped. Attention
                    weights are never dropped.
                    Default: 0.0
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 100,
        hidden_size: int = 64,
        num_classes: int = 2,
        padding_idx: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.padding_idx = padding_idx
        self.embedding = nn.Embedding(
            vocab_size, embedding_dim, padding_idx=padding_idx
        )
        # PyTorch's standard normal start is large for word vectors that are learned
        # from few sentences; a smaller one learns faster and better on the reviews.
        with torch.no_grad():
            self.embedding.weight.mul_(_EMBEDDING_STD)
        self.lstm = nn.LSTM(
            embedding_dim, hidden_size, batch_first=True, bidirectional=True
        )
        self.attention = AdditiveAttention(2 * hidden_size)
        self.classifier = nn.Linear(2 * hidden_size, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        r"""
        Args:

            input_ids (Tensor, optional): Token ids, int64, of shape (batch, length).
            attention_mask (Tensor, optional): bool or 0/1, of shape (batch, length);
                        True or 1 at the positions that belong to the sentence. With
                        None these are the positions whose id is not ``padding_idx``; a
                        row of nothing but padding, a frequent baseline of attribution
                        methods, then counts as a sentence of one blank word. With None
                        and ``inputs_embeds`` all positions belong to the sentence.
                        Default: None
            inputs_embeds (Tensor, optional): Word vectors of shape (batch, length,
                        embedding_dim), in the place of ``input_ids``.
                        Default: None

        Returns:
            Tensor:
            - Logits of shape (batch, num_classes).

        Raises:

            ValueError: If not exactly one of ``input_ids`` and ``inputs_embeds`` is
                        given, a shape is wrong, or a row of ``attention_mask`` allows
                        no position.
        """
        embedded, mask = self._embed(input_ids, attention_mask, inputs_embeds)
        states = self._run_lstm(self.dropout(embedded), mask)
        context, _ = self.attention(states, mask=mask)
        return cast(Tensor, self.classifier(self.dropout(context)))

    def _embed(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return word vectors and the boolean mask of the positions that count."""
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("Pass either input_ids or inputs_embeds, and not both.")
        # Captum's InterpretableEmbeddingBase takes the place of the embedding and
        # passes on word vectors that are given as input_ids.
        is_vectors = given.is_floating_point()
        if given.dim() != (3 if is_vectors else 2) or given.shape[1] == 0:
            raise ValueError(
                "Expected ids of shape (batch, length) or word vectors of shape "
                "(batch, length, embedding_dim), with a length of at least 1; got "
                f"{given.dtype} of shape {tuple(given.shape)}. For one sentence, pass "
                "ids.unsqueeze(0)."
            )
        if attention_mask is not None:
            mask = attention_mask != 0
            if mask.shape != given.shape[:2]:
                raise ValueError(
                    f"attention_mask has the shape {tuple(mask.shape)}, expected "
                    f"(batch, length) = {tuple(given.shape[:2])}."
                )
            empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
            if empty:
                raise ValueError(
                    f"attention_mask allows no position in row(s) {empty[:5]}. A "
                    "sentence needs at least one token; give an empty text one unknown "
                    "token."
                )
        elif is_vectors:
            mask = torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
        else:
            mask = given != self.padding_idx
            blank = ~mask.any(dim=1, keepdim=True)
            first = torch.arange(mask.shape[1], device=mask.device) == 0
            mask = mask | (blank & first)
        vectors = self.embedding(given) if inputs_embeds is None else inputs_embeds
        return vectors, mask

    def _run_lstm(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Return the states at the positions of ``mask``, and 0 at the others."""
        length = mask.shape[1]
        lengths = mask.sum(dim=1)
        prefix = torch.arange(length, device=mask.device) < lengths.unsqueeze(1)
        order = None
        if not torch.equal(mask, prefix):
            # Packing needs the allowed positions first, in their order.
            order = mask.logical_not().to(torch.uint8).argsort(dim=1, stable=True)
            embedded = embedded.gather(1, _like(order, embedded))
        states, _ = run_packed(self.lstm, embedded, lengths)
        if order is not None:
            states = states.gather(1, _like(order.argsort(dim=1), states))
        return states


def _like(index: Tensor, values: Tensor) -> Tensor:
    return index.unsqueeze(-1).expand(-1, -1, values.shape[-1])


register_recurrent_attention(
    AttentionLSTMClassifier,
    RecurrentAttention(
        recurrent="lstm",
        readers=("attention.key_projection", "classifier"),
        score="attention.score",
        hidden="attention.key_projection",
        embedding="embedding",
    ),
)
