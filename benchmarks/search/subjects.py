"""The two models of the search, seen alike: word vectors in, logits out, attention
calls laid open on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_attngrad.datasets import MovieReviewSnippets
from captum_attngrad.models import finetuned_minilm, trained_lstm
from captum_attngrad.text import pad_batch

# Called with the number of the call, its values (batch, heads, keys, channels) and a
# function that attends to such values; returns what is to take the output's place.
Change = Callable[[int, Tensor, Callable[[Tensor], Tensor]], Tensor]


class Batch(NamedTuple):
    """Texts of similar length. ``attributable`` leaves out padding and special tokens;
    ``target`` is the class that the model predicts."""

    rows: list[int]
    ids: Tensor
    mask: Tensor
    attributable: Tensor
    target: Tensor


class Subject:
    """A classifier of texts."""

    name: str
    replacement: int
    model: torch.nn.Module

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        raise NotImplementedError

    def padded(self, encoded: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask, attributable."""
        raise NotImplementedError

    def vectors(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def embedding(self) -> torch.nn.Module:
        raise NotImplementedError

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError

    def run(
        self, vectors: Tensor, mask: Tensor, change: Change
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the states of the tokens after each layer."""
        raise NotImplementedError

    def probabilities(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.logits(ids, mask).softmax(dim=-1)


class _ChangedAttention(TorchFunctionMode):
    def __init__(self, change: Change) -> None:
        super().__init__()
        self.change = change
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value, *rest = args
        with torch._C.DisableTorchFunction():
            output = self.change(
                self.calls, value, lambda v: func(query, key, v, *rest, **kwargs)
            )
        self.calls += 1
        return output


class MiniLM(Subject):
    name = "minilm"

    def __init__(self) -> None:
        trained = finetuned_minilm()
        self.model, self.tokenizer = trained.model, trained.tokenizer
        self.model.requires_grad_(False)
        self.replacement = self.tokenizer.mask_token_id
        self.about = f"test accuracy {trained.test_accuracy:.2%}"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), truncation=True)["input_ids"]

    def padded(self, encoded: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask = pad_batch(encoded, self.tokenizer.pad_token_id)
        special = (ids == self.tokenizer.cls_token_id) | (
            ids == self.tokenizer.sep_token_id
        )
        return ids, mask, mask & ~special

    def embedding(self) -> torch.nn.Module:
        return self.model.bert.embeddings.word_embeddings

    def vectors(self, ids: Tensor) -> Tensor:
        return self.embedding()(ids)

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model(input_ids=ids, attention_mask=mask.long()).logits

    def run(
        self, vectors: Tensor, mask: Tensor, change: Change
    ) -> tuple[Tensor, list[Tensor]]:
        with _ChangedAttention(change):
            output = self.model(
                inputs_embeds=vectors,
                attention_mask=mask.long(),
                output_hidden_states=True,
            )
        return output.logits, list(output.hidden_states)


class LSTM(Subject):
    name = "lstm"

    def __init__(self) -> None:
        trained = trained_lstm(show_progress=True)
        self.model, self.vocab = trained.model, trained.vocab
        self.tokenizer = trained.tokenizer
        self.model.requires_grad_(False)
        self.replacement = self.vocab["<unk>"]
        self.about = f"test accuracy {trained.test_accuracy:.2%}"

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.vocab(self.tokenizer(text)) for text in texts]

    def padded(self, encoded: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask = pad_batch(encoded, self.vocab["<pad>"])
        return ids, mask, mask

    def embedding(self) -> torch.nn.Module:
        return self.model.embedding

    def vectors(self, ids: Tensor) -> Tensor:
        return self.model.embedding(ids)

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model(ids, mask)

    def run(
        self, vectors: Tensor, mask: Tensor, change: Change
    ) -> tuple[Tensor, list[Tensor]]:
        states = []

        def changed(module: Any, args: Any, kwargs: Any, result: Any) -> Any:
            keys, weights = args[0], result[1]
            states.append(keys)
            output = change(
                0,
                keys.unsqueeze(1),
                lambda v: torch.bmm(weights.unsqueeze(1), v.squeeze(1)).unsqueeze(1),
            )
            return output.flatten(1), weights

        with _hook(self.model.attention, changed):
            logits = self.model(inputs_embeds=vectors, attention_mask=mask)
        return logits, [vectors, *states]


@contextlib.contextmanager
def _hook(module: torch.nn.Module, after: Any) -> Iterator[None]:
    handle = module.register_forward_hook(after, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


SUBJECTS: dict[str, type[Subject]] = {"minilm": MiniLM, "lstm": LSTM}


@dataclass
class Texts:
    """Some reviews, in batches of similar length."""

    batches: list[Batch]
    count: int


def load_texts(
    subject: Subject, split: str, count: int, batch_size: int = 25, skip: int = 0
) -> Texts:
    reviews = list(MovieReviewSnippets(split=split, min_abs_rating=1.0))
    encoded = subject.encode([review.text for review in reviews[skip : skip + count]])
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    batches = []
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        ids, mask, attributable = subject.padded([encoded[row] for row in rows])
        with torch.no_grad():
            target = subject.logits(ids, mask).argmax(dim=1)
        batches.append(Batch(rows, ids, mask, attributable, target))
    return Texts(batches, len(encoded))
