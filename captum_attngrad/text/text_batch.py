"""A batch of texts, encoded for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TextBatch:
    r"""
    A batch of texts, encoded for a model.

    Args:
        tokens (tuple of tuple of str): Tokens of each text, as they are shown; those of
            text i stand at the first ``len(tokens[i])`` positions of its row.
        input_ids (Tensor): Token ids, shape (batch, tokens), padded on the right.
        attention_mask (Tensor): Boolean, same shape: False on padding.
        attributable (Tensor): Boolean, same shape: True on tokens that may be scored
            and masked, so False on padding and special tokens.
        seeds (tuple of int): A seed for each text, for methods that draw at random. It
            belongs to the text, so results do not depend on how texts are batched.
        extras (Mapping of str to Tensor): What else the tokenizer returned for the
            model, such as ``token_type_ids``, by the name of the model's argument:
            shape (batch, tokens, ...).
        of_texts (frozenset of str): Those of them that are of whole texts,
            (batch, ...).
    """

    tokens: tuple[tuple[str, ...], ...]
    input_ids: Tensor
    attention_mask: Tensor
    attributable: Tensor
    seeds: tuple[int, ...]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    of_texts: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def forward_args(self) -> tuple[Tensor, ...]:
        """What :attr:`TextModel.logits` takes after ``input_ids``: the mask, and the
        extra tensors in their order. Captum's ``additional_forward_args``."""
        return (self.attention_mask, *self.extras.values())

    def rows(self, rows: Sequence[int], length: int | None = None) -> TextBatch:
        """Some of the texts, with the padding they have here or cut to ``length``."""
        index = torch.as_tensor(list(rows), device=self.input_ids.device)
        extras = {
            name: values[index] if name in self.of_texts else values[index, :length]
            for name, values in self.extras.items()
        }
        return TextBatch(
            tokens=tuple(self.tokens[row] for row in rows),
            input_ids=self.input_ids[index, :length],
            attention_mask=self.attention_mask[index, :length],
            attributable=self.attributable[index, :length],
            seeds=tuple(self.seeds[row] for row in rows),
            extras=extras,
            of_texts=self.of_texts,
        )

    def row(self, index: int) -> TextBatch:
        """One text as a batch of its own, with the padding it has here."""
        return self.rows([index])

    def trimmed_row(self, index: int) -> TextBatch:
        """One text as a batch of its own, without padding."""
        return self.rows([index], len(self.tokens[index]))
