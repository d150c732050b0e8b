"""The attention LSTM trained on movie reviews, and the cache that keeps it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from captum_attngrad._cache import PathLike, resolve_root
from captum_attngrad._classes import check_seed
from captum_attngrad.datasets import MovieReview
from captum_attngrad.models._kept import file_name, load_or_train, pack, unpack
from captum_attngrad.models._review_splits import review_splits
from captum_attngrad.models._training import (
    UNKNOWN,
    Settings,
    accuracy,
    build_model,
    train,
)
from captum_attngrad.models.lstm_classifier import AttentionLSTMClassifier
from captum_attngrad.text import Vocab, WordTokenizer

# Raise it when the tokenizer, the split, the model or the training changes, so that
# models kept by earlier versions are trained again.
_FORMAT = 1


class TrainedLSTM(NamedTuple):
    r"""
    A trained sentiment classifier with what is needed to use it.

    Args:

        model (AttentionLSTMClassifier): The model, on the CPU and in eval mode. Class 1
                    is positive sentiment, class 0 is not.
        tokenizer (WordTokenizer): Splits a text into tokens.
        vocab (Vocab): Turns tokens into ids; ``vocab["<pad>"]`` is the padding id, and
                    words that were not in the training sentences get the id of
                    ``"<unk>"``.
        test_accuracy (float): Share of the test sentences that are classified rightly,
                    from 0 to 1.
        validation_accuracy (float): The same for the validation sentences, by which
                    the epoch was chosen.
        best_epoch (int): The epoch after which the model was taken, from 1.
        training_seconds (float): How long the training took when it was done.
        path (Path): The file that keeps the model.
    """

    model: AttentionLSTMClassifier
    tokenizer: WordTokenizer
    vocab: Vocab
    test_accuracy: float
    validation_accuracy: float
    best_epoch: int
    training_seconds: float
    path: Path


def trained_lstm(
    root: PathLike | None = None,
    retrain: bool = False,
    show_progress: bool = True,
    *,
    data_root: PathLike | None = None,
    download: bool = True,
    seed: int = 0,
    min_abs_rating: float = 1.0,
    embedding_dim: int = 100,
    hidden_size: int = 64,
    dropout: float = 0.5,
    word_dropout: float = 0.1,
    min_freq: int = 2,
    epochs: int = 12,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
) -> TrainedLSTM:
    r"""
    Return an :class:`AttentionLSTMClassifier` trained on
    :class:`~captum_attngrad.datasets.MovieReviewSnippets`. The first call trains it,
    in about a minute on a laptop's processor, and keeps it; later calls with the same
    settings load it, and need no data.

    The vocabulary comes from the training sentences, the epoch is chosen on the
    validation sentences, and the test sentences are used once, for the accuracy that is
    returned. The same settings give the same model on the same machine; PyTorch's
    random state, default dtype and number of threads are left as they were.

    Args:

        root (str or os.PathLike, optional): Folder that keeps trained models. With None
                    it is ``models`` in the cache folder (see
                    :class:`~captum_attngrad.datasets.MovieReviewSnippets`).
                    Default: None
        retrain (bool, optional): Whether to train even if there is a kept model, which
                    is then replaced.
                    Default: False
        show_progress (bool, optional): Whether training displays a progress bar.
                    Default: True
        data_root (str or os.PathLike, optional): ``root`` of the data set.
                    Default: None
        download (bool, optional): Whether the data set may be downloaded.
                    Default: True
        seed (int, optional): Seed of everything random in the training.
                    Default: 0
        min_abs_rating (float, optional): Sentences with a rating closer to 0 are left
                    out, in all splits.
                    Default: 1.0
        embedding_dim (int, optional): Size of a word vector.
                    Default: 100
        hidden_size (int, optional): Size of the LSTM state in one direction.
                    Default: 64
        dropout (float, optional): Dropout of word vectors and of the attended state.
                    Default: 0.5
        word_dropout (float, optional): Probability with which a word is replaced by
                    ``"<unk>"`` during training. It makes ``"<unk>"`` a fair
                    replacement for a word that is masked to measure its effect.
                    Default: 0.1
        min_freq (int, optional): How often a word must occur in the training sentences
                    to be in the vocabulary.
                    Default: 2
        epochs (int, optional): Number of passes over the training sentences.
                    Default: 12
        batch_size (int, optional): Sentences in a batch.
                    Default: 64
        learning_rate (float, optional): Step size of Adam.
                    Default: 2e-3

    Returns:
        TrainedLSTM:
        - The model, its tokenizer and vocabulary, and its accuracies.

    Raises:

        ValueError: If ``epochs`` or ``batch_size`` is below 1, ``seed`` is out of
                    range, or ``min_abs_rating`` leaves no sentences in a split.
        FileNotFoundError, RuntimeError: If the data is needed and cannot be had.

    Examples::

        >>> trained = trained_lstm()
        >>> tokens = trained.tokenizer("A warm, funny and moving film.")
        >>> ids = torch.tensor([trained.vocab(tokens)])
        >>> trained.model(ids).softmax(dim=1)[0, 1]  # probability of positive sentiment
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    settings = Settings(
        seed=check_seed(seed),
        min_abs_rating=min_abs_rating,
        embedding_dim=embedding_dim,
        hidden_size=hidden_size,
        dropout=dropout,
        word_dropout=word_dropout,
        min_freq=min_freq,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    path = resolve_root(root, "models") / file_name(
        "attention_lstm", _FORMAT, asdict(settings)
    )

    def train_on_data() -> bytes:
        splits = review_splits(data_root, download, min_abs_rating)
        return _train(splits, settings, show_progress)

    def load(kept: bytes) -> TrainedLSTM:
        return _load(kept, path, settings)

    return load_or_train(path, load, train_on_data, retrain, seed)


def _train(
    splits: dict[str, list[MovieReview]], settings: Settings, show_progress: bool
) -> bytes:
    """Train a model and return what the file that keeps it is to hold."""
    start = time.perf_counter()
    model, vocab, history = train(
        splits["train"], splits["validation"], settings, show_progress
    )
    return pack(
        _FORMAT,
        asdict(settings),
        state_dict=model.state_dict(),
        tokens=vocab.get_itos(),
        test_accuracy=accuracy(model, WordTokenizer(), vocab, splits["test"]),
        validation_accuracy=max(history),
        best_epoch=1 + history.index(max(history)),
        training_seconds=time.perf_counter() - start,
    )


def _load(kept: bytes, path: Path, settings: Settings) -> TrainedLSTM:
    content = unpack(kept, _FORMAT, asdict(settings))
    vocab = Vocab(content["tokens"])
    vocab.set_default_index(vocab[UNKNOWN])
    model = build_model(vocab, settings)
    model.load_state_dict(content["state_dict"])
    return TrainedLSTM(
        model=model.eval(),
        tokenizer=WordTokenizer(),
        vocab=vocab,
        test_accuracy=content["test_accuracy"],
        validation_accuracy=content["validation_accuracy"],
        best_epoch=content["best_epoch"],
        training_seconds=content["training_seconds"],
        path=path,
    )
