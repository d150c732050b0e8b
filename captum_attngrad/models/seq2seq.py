"""A recurrent encoder and decoder with additive attention between them."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from captum_attngrad.models._recurrent import run_packed
from captum_attngrad.models.attention import AdditiveAttention


class _Encoded(NamedTuple):
    """What the decoder needs of the input, the same for every output."""

    states: Tensor  # (batch, length, 2 * hidden_size)
    projected: Tensor  # the same states, as AdditiveAttention compares them
    mask: Tensor  # (batch, length), bool
    start: Tensor  # (batch, hidden_size), the decoder's first state


class AttentionSeq2Seq(nn.Module):
    r"""
    Sequence transducer: embedding, bidirectional GRU encoder, GRU decoder with additive
    attention over the encoder's states (Bahdanau, Cho and Bengio, "Neural Machine
    Translation by Jointly Learning to Align and Translate", ICLR 2015,
    https://arxiv.org/abs/1409.0473).

    One step of the decoder: the GRU reads the previous output's embedding and the
    previous attended state; its new state is the query of the attention; a linear layer
    turns the new state and the attended state into logits. So the weights of the
    ``t``-th call of ``attention`` are those that output ``t`` uses directly, and later
    outputs see them through the attended state that is passed on (input feeding, Luong,
    Pham and Manning, EMNLP 2015, https://arxiv.org/abs/1508.04025).

    The parts are the submodules ``source_embedding``, ``encoder``, ``bridge`` (to the
    decoder's first state), ``target_embedding``, ``decoder``, ``attention`` (the layer
    to pass to attention-based attribution) and ``classifier``.

    Args:

        source_vocab_size (int): Number of input ids.
        target_vocab_size (int): Number of output ids, which is the number of classes.
        embedding_dim (int, optional): Size of an embedding, on both sides.
                    Default: 64
        hidden_size (int, optional): Size of the decoder's state, and of the encoder's
                    in one direction.
                    Default: 128
        padding_idx (int, optional): The id of padding, on both sides. Padding stands
                    on the right.
                    Default: 0
        start_idx (int, optional): The output id that the decoder reads before the
                    first output.
                    Default: 1
        end_idx (int, optional): The output id that ends a sequence.
                    Default: 2
        dropout (float, optional): Probability with which, during training, a number of
                    the embeddings and of the input of the last layer is dropped.
                    Attention weights are never dropped.
                    Default: 0.0
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        embedding_dim: int = 64,
        hidden_size: int = 128,
        padding_idx: int = 0,
        start_idx: int = 1,
        end_idx: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.padding_idx = padding_idx
        self.start_idx = start_idx
        self.end_idx = end_idx
        self.source_embedding = nn.Embedding(
            source_vocab_size, embedding_dim, padding_idx=padding_idx
        )
        self.encoder = nn.GRU(
            embedding_dim, hidden_size, batch_first=True, bidirectional=True
        )
        self.bridge = nn.Linear(2 * hidden_size, hidden_size)
        self.target_embedding = nn.Embedding(
            target_vocab_size, embedding_dim, padding_idx=padding_idx
        )
        self.decoder = nn.GRUCell(embedding_dim + 2 * hidden_size, hidden_size)
        self.attention = AdditiveAttention(
            2 * hidden_size, query_dim=hidden_size, attention_dim=hidden_size
        )
        self.classifier = nn.Linear(3 * hidden_size, target_vocab_size)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        r"""
        Run the decoder over given outputs (teacher forcing): at output ``t`` it reads
        ``decoder_input_ids`` up to ``t``.

        Args:

            input_ids (Tensor): Ids, int64, of shape (batch, length).
            decoder_input_ids (Tensor): The start id and all outputs but the last, as
                        :meth:`decoder_inputs` puts them together; int64, of shape
                        (batch, outputs). What the model says at padding has no meaning.
            attention_mask (Tensor, optional): bool or 0/1, of shape (batch, length);
                        True or 1 at the positions that belong to the input, which are
                        the first ones of a row. With None these are the positions up to
                        the last one whose id is not ``padding_idx``; a row of nothing
                        but padding then counts as an input of one blank.
                        Default: None

        Returns:
            Tensor:
            - Logits of shape (batch, outputs, classes).

        Raises:

            ValueError: If a shape or type is wrong, or a row of ``attention_mask``
                        allows no position or has a gap.

        Examples::

            >>> outputs = model.greedy_decode(ids, mask)
            >>> logits = model(ids, model.decoder_inputs(outputs), mask)
            >>> method = SequenceAttentionGradient(model, model.attention)
            >>> method.attribute(ids, outputs, (model.decoder_inputs(outputs), mask))
        """
        _check_ids("input_ids", input_ids)
        _check_ids("decoder_input_ids", decoder_input_ids)
        if len(decoder_input_ids) != len(input_ids):
            raise ValueError(
                f"decoder_input_ids has {len(decoder_input_ids)} rows and input_ids "
                f"{len(input_ids)}; expected as many of both."
            )
        encoded = self._encode(input_ids, attention_mask)
        embedded = self.dropout(self.target_embedding(decoder_input_ids))
        state, context = encoded.start, torch.zeros_like(encoded.states[:, 0])
        features = []
        for previous in embedded.unbind(1):
            state, context = self._step(previous, state, context, encoded)
            features.append(torch.cat([state, context], dim=1))
        # One product for all outputs instead of one for each.
        readout = self.dropout(torch.stack(features, dim=1))
        return cast(Tensor, self.classifier(readout))

    def decoder_inputs(self, outputs: Tensor) -> Tensor:
        r"""
        Return what the decoder reads to write ``outputs``: the start id, and all of
        them but the last.

        Args:

            outputs (Tensor): Ids, int64, of shape (batch, outputs).

        Returns:
            Tensor:
            - Ids of the same shape.

        Raises:

            ValueError: If the shape or type is wrong.
        """
        _check_ids("outputs", outputs)
        start = outputs.new_full((len(outputs), 1), self.start_idx)
        return torch.cat([start, outputs[:, :-1]], dim=1)

    @torch.no_grad()
    def greedy_decode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        max_outputs: int = 40,
    ) -> Tensor:
        r"""
        Return the outputs that come from taking the most probable one at each step.

        Args:

            input_ids (Tensor): Ids, int64, of shape (batch, length).
            attention_mask (Tensor, optional): As in :meth:`forward`.
                        Default: None
            max_outputs (int, optional): The most outputs, the end id counted, of a row
                        that does not end by itself.
                        Default: 40

        Returns:
            Tensor:
            - Ids of shape (batch, outputs): the end id where the row ended by itself,
              padding after it. ``padding_idx`` and ``start_idx`` are never chosen.

        Raises:

            ValueError: If ``max_outputs`` is below 1, or as in :meth:`forward`.
        """
        if max_outputs < 1:
            raise ValueError(f"max_outputs must be at least 1, got {max_outputs}.")
        _check_ids("input_ids", input_ids)
        encoded = self._encode(input_ids, attention_mask)
        state, context = encoded.start, torch.zeros_like(encoded.states[:, 0])
        previous = input_ids.new_full((len(input_ids),), self.start_idx)
        ended = torch.zeros_like(previous, dtype=torch.bool)
        outputs: list[Tensor] = []
        while len(outputs) < max_outputs and not ended.all():
            embedded = self.dropout(self.target_embedding(previous))
            state, context = self._step(embedded, state, context, encoded)
            logits = self.classifier(self.dropout(torch.cat([state, context], dim=1)))
            logits[:, [self.padding_idx, self.start_idx]] = float("-inf")
            previous = logits.argmax(dim=1).masked_fill(ended, self.padding_idx)
            ended = ended | (previous == self.end_idx)
            outputs.append(previous)
        return torch.stack(outputs, dim=1)

    def _step(
        self, embedded: Tensor, state: Tensor, context: Tensor, encoded: _Encoded
    ) -> tuple[Tensor, Tensor]:
        """Return the decoder's new state and what it attends to."""
        state = self.decoder(torch.cat([embedded, context], dim=1), state)
        context, _ = self.attention(
            encoded.states, state, encoded.mask, projected_keys=encoded.projected
        )
        return state, context

    def _encode(self, input_ids: Tensor, attention_mask: Tensor | None) -> _Encoded:
        mask = self._mask(input_ids, attention_mask)
        embedded = self.dropout(self.source_embedding(input_ids))
        states, last = run_packed(self.encoder, embedded, mask.sum(dim=1))
        start = torch.tanh(self.bridge(torch.cat([last[0], last[1]], dim=1)))
        return _Encoded(states, self.attention.key_projection(states), mask, start)

    def _mask(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        if attention_mask is None:
            mask = input_ids != self.padding_idx
            # Also a padding id between others is then an input, a blank.
            lengths = mask * torch.arange(1, 1 + mask.shape[1], device=mask.device)
            longest = lengths.amax(dim=1).clamp(min=1)
            return _prefix(longest, mask.shape[1])
        mask = attention_mask != 0
        if mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask has the shape {tuple(mask.shape)}, expected that of "
                f"input_ids, (batch, length) = {tuple(input_ids.shape)}."
            )
        lengths = mask.sum(dim=1)
        bad = (lengths == 0) | (mask != _prefix(lengths, mask.shape[1])).any(dim=1)
        if bad.any():
            raise ValueError(
                f"attention_mask must allow the first position(s) of each row and no "
                f"others (padding on the right); row(s) "
                f"{bad.nonzero().flatten().tolist()[:5]} are otherwise."
            )
        return mask


def _prefix(lengths: Tensor, length: int) -> Tensor:
    return torch.arange(length, device=lengths.device) < lengths.unsqueeze(1)


def _check_ids(name: str, ids: Tensor) -> None:
    if ids.dim() != 2 or ids.shape[1] == 0 or ids.is_floating_point():
        raise ValueError(
            f"{name} must hold integer ids of shape (batch, length) with a length of "
            f"at least 1, got {ids.dtype} of shape {tuple(ids.shape)}. For one "
            "sequence, pass ids.unsqueeze(0)."
        )
