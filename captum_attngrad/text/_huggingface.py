"""Reading texts as a Hugging Face tokenizer and model do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

# Tokenizers without a limit say so with a huge number.
_NO_LIMIT = 1_000_000


class HuggingFaceText:
    """The parts of a ``TextModel`` that ask a Hugging Face model or tokenizer."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        class_names: Sequence[str] | None,
        max_length: int | None,
    ) -> None:
        if tokenizer.pad_token_id is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no padding token, so texts of "
                "different lengths cannot share a batch. Set tokenizer.pad_token (and "
                "model.config.pad_token_id) first."
            )
        if model.config.num_labels < 2:
            raise ValueError(
                f"{type(model).__name__} has {model.config.num_labels} output(s); "
                "expected a classifier with two classes or more."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.pad_id = int(tokenizer.pad_token_id)
        candidates = (tokenizer.mask_token_id, tokenizer.unk_token_id, self.pad_id)
        self.replacement_id = int(next(i for i in candidates if i is not None))
        self.special_ids = tuple(sorted({int(i) for i in tokenizer.all_special_ids}))
        self.class_names = _class_names(model, class_names)
        self.max_length = _max_length(model, tokenizer, max_length)

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask.long())
        logits: Tensor = output.logits
        return logits

    def encode(
        self, texts: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]], int]:
        """Ids and marks of special tokens for each text, and how many were cut."""
        encoded = self.tokenizer(
            list(texts),
            return_special_tokens_mask=True,
            return_attention_mask=False,
            truncation=self.max_length is not None,
            max_length=self.max_length,
        )
        rows = [list(ids) for ids in encoded["input_ids"]]
        special = [list(marks) for marks in encoded["special_tokens_mask"]]
        n_cut = 0
        full = [i for i, ids in enumerate(rows) if len(ids) == self.max_length]
        if full:
            whole = self.tokenizer([texts[i] for i in full], verbose=False)
            n_cut = sum(
                len(ids) > len(rows[i])
                for i, ids in zip(full, whole["input_ids"], strict=True)
            )
        return rows, special, n_cut

    def show_tokens(self, ids: list[int]) -> list[str]:
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        # Bytes and the marks of spaces in byte-level and SentencePiece vocabularies are
        # not for reading; "##" stays, as it says that a piece goes on.
        return [
            token
            if token.startswith("##") or token in self.tokenizer.all_special_tokens
            else self.tokenizer.convert_tokens_to_string([token]).strip() or token
            for token in tokens
        ]


def _class_names(model: Any, given: Sequence[str] | None) -> tuple[str, ...]:
    n_classes = int(model.config.num_labels)
    names = given
    if names is None:
        names = [str(model.config.id2label[i]) for i in range(n_classes)]
    if len(names) != n_classes:
        raise ValueError(
            f"class_names has {len(names)} entries; the model has {n_classes} classes."
        )
    return tuple(names)


def _max_length(model: Any, tokenizer: Any, given: int | None) -> int | None:
    if given is not None:
        return given
    limits = [tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None:
        limits.append(positions)
    limit = int(min(limits))
    return limit if limit < _NO_LIMIT else None
