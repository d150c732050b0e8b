"""Training the attention LSTM."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from captum_attngrad.datasets import MovieReview
from captum_attngrad.models._epochs import length_sorted_batches
from captum_attngrad.models.lstm_classifier import AttentionLSTMClassifier
from captum_attngrad.text import (
    Vocab,
    WordTokenizer,
    build_vocab_from_iterator,
    pad_batch,
)

PADDING = "<pad>"
UNKNOWN = "<unk>"
_EVAL_BATCH = 256


@dataclass(frozen=True)
class Settings:
    """What a trained model depends on, apart from the data and the machine."""

    seed: int
    min_abs_rating: float
    embedding_dim: int
    hidden_size: int
    dropout: float
    word_dropout: float
    min_freq: int
    epochs: int
    batch_size: int
    learning_rate: float


class Trained(NamedTuple):
    """A model in eval mode, its vocabulary, and its validation accuracy by epoch."""

    model: AttentionLSTMClassifier
    vocab: Vocab
    history: list[float]


def train(
    train_reviews: Sequence[MovieReview],
    validation_reviews: Sequence[MovieReview],
    settings: Settings,
    show_progress: bool,
) -> Trained:
    """
    Train a model and return it as it was after its best epoch, the first of those with
    the highest accuracy on the validation sentences. The vocabulary is that of the
    training sentences. It draws from PyTorch's generator.
    """
    tokenizer = WordTokenizer()
    vocab = build_vocab_from_iterator(
        (tokenizer(review.text) for review in train_reviews),
        min_freq=settings.min_freq,
        specials=[PADDING, UNKNOWN],
    )
    vocab.set_default_index(vocab[UNKNOWN])
    encoded = _encode(train_reviews, tokenizer, vocab)
    labels = _labels(train_reviews)
    model = build_model(vocab, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    batches = -(-len(encoded) // settings.batch_size)
    history: list[float] = []
    best: dict[str, Tensor] = {}
    steps = settings.epochs * batches
    with tqdm(
        total=steps, desc="Training AttentionLSTMClassifier", disable=not show_progress
    ) as bar:
        for _ in range(settings.epochs):
            model.train()
            for rows in length_sorted_batches(encoded, settings.batch_size):
                ids, mask = pad_batch([encoded[row] for row in rows], vocab[PADDING])
                dropped = torch.rand(ids.shape) < settings.word_dropout
                ids = ids.masked_fill(dropped & mask, vocab[UNKNOWN])
                loss = F.cross_entropy(model(ids, mask), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
            history.append(accuracy(model, tokenizer, vocab, validation_reviews))
            if history[-1] > max(history[:-1], default=-1.0):
                best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return Trained(model.eval(), vocab, history)


def accuracy(
    model: AttentionLSTMClassifier,
    tokenizer: WordTokenizer,
    vocab: Vocab,
    reviews: Sequence[MovieReview],
) -> float:
    """Return the share of ``reviews`` whose label the model predicts."""
    encoded = _encode(reviews, tokenizer, vocab)
    was_training = model.training
    model.eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(reviews), _EVAL_BATCH):
            ids, mask = pad_batch(encoded[start : start + _EVAL_BATCH], vocab[PADDING])
            labels = _labels(reviews[start : start + _EVAL_BATCH])
            correct += int((model(ids, mask).argmax(dim=1) == labels).sum())
    model.train(was_training)
    return correct / len(reviews)


def build_model(vocab: Vocab, settings: Settings) -> AttentionLSTMClassifier:
    """Return an untrained model for this vocabulary."""
    return AttentionLSTMClassifier(
        len(vocab),
        embedding_dim=settings.embedding_dim,
        hidden_size=settings.hidden_size,
        padding_idx=vocab[PADDING],
        dropout=settings.dropout,
    )


def _encode(
    reviews: Sequence[MovieReview], tokenizer: WordTokenizer, vocab: Vocab
) -> list[list[int]]:
    return [vocab(tokenizer(review.text)) for review in reviews]


def _labels(reviews: Sequence[MovieReview]) -> Tensor:
    return torch.tensor([review.label for review in reviews])
