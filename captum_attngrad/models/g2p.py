"""The attention transducer trained on letters to phonemes, kept in the cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from captum_attngrad._cache import PathLike, resolve_root
from captum_attngrad._classes import check_seed
from captum_attngrad.datasets import DictionaryEntry, PronouncingDictionary
from captum_attngrad.datasets.pronouncing_dictionary import SHA256
from captum_attngrad.models._g2p_training import (
    PADDING,
    G2PSettings,
    build_g2p,
    letter_vocab,
    train_g2p,
    transcribe,
)
from captum_attngrad.models._kept import file_name, load_or_train, pack, unpack
from captum_attngrad.models.seq2seq import AttentionSeq2Seq
from captum_attngrad.text import Vocab, pad_batch
from captum_attngrad.text.error_rates import phoneme_error_rate, word_error_rate

# Raise it when the split, the model or the training changes, so that models kept by
# earlier versions are trained again.
_FORMAT = 1


class TrainedG2P(NamedTuple):
    r"""
    A trained letters-to-phonemes model with what is needed to use it.

    Args:

        model (AttentionSeq2Seq): The model, on the CPU and in eval mode.
        letters (Vocab): Turns letters into ids; ``letters["<pad>"]`` is the padding id,
                    and everything that is neither a lower-case letter nor an apostrophe
                    gets the id of ``"<unk>"``.
        phonemes (Vocab): Turns phonemes into ids; ``"</s>"`` ends a pronunciation.
        test_phoneme_error_rate (float): Edit distance to the test words'
                    pronunciations, as a share of their phonemes (see
                    :func:`~captum_attngrad.text.phoneme_error_rate`).
        test_word_error_rate (float): Share of the test words for which the model gives
                    none of the dictionary's pronunciations, from 0 to 1.
        validation_phoneme_error_rate (float): The same for the validation words.
                    Nothing was chosen by it.
        validation_word_error_rate (float): The same for the validation words.
        training_seconds (float): How long the training took when it was done.
        path (Path): The file that keeps the model.
    """

    model: AttentionSeq2Seq
    letters: Vocab
    phonemes: Vocab
    test_phoneme_error_rate: float
    test_word_error_rate: float
    validation_phoneme_error_rate: float
    validation_word_error_rate: float
    training_seconds: float
    path: Path

    def encode(self, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        r"""
        Return the letters of ``words`` (in any case) as ids and their mask.

        Args:

            words (Sequence[str]): At least one word, none of them empty.

        Returns:
            **ids**, **mask** (Tensor, Tensor):
            - **ids**: int64, of shape (words, letters of the longest word).
            - **mask**: bool, of the same shape; False at padding.

        Raises:

            TypeError: If ``words`` is one string.
            ValueError: If there is no word, or an empty one.
        """
        lowered = _lowered(words)
        encoded = [self.letters(list(word)) for word in lowered]
        return pad_batch(encoded, self.letters[PADDING])

    def pronounce(self, words: Sequence[str]) -> list[list[str]]:
        r"""
        Return the phonemes that greedy decoding gives for each of ``words``.

        Args:

            words (Sequence[str]): At least one word, none of them empty.

        Returns:
            list[list[str]]:
            - ARPAbet phonemes, without the end.

        Raises:

            TypeError: If ``words`` is one string.
            ValueError: If there is no word, or an empty one.
        """
        return transcribe(self.model, self.letters, self.phonemes, _lowered(words))


def trained_g2p(
    root: PathLike | None = None,
    retrain: bool = False,
    show_progress: bool = True,
    *,
    dictionary: PathLike | None = None,
    seed: int = 0,
    stress: bool = False,
    embedding_dim: int = 64,
    hidden_size: int = 128,
    dropout: float = 0.05,
    letter_dropout: float = 0.02,
    epochs: int = 6,
    batch_size: int = 128,
    learning_rate: float = 6e-3,
) -> TrainedG2P:
    r"""
    Return an :class:`AttentionSeq2Seq` trained to turn letters into phonemes on
    :class:`~captum_attngrad.datasets.PronouncingDictionary`. The first call trains it,
    in about ten minutes on one core of a processor, and keeps it; later calls with the
    same settings load it, and need no data.

    It learns the first pronunciation of every training word. Validation and test words
    are used once each, for the error rates that are returned; there any of a word's
    pronunciations is right, as in published evaluations. The same settings give the
    same model on the same machine; PyTorch's random state, default dtype and number of
    threads are left as they were.

    With the default settings 7.9% of the phonemes and 33.1% of the words of the test
    split were wrong, after ten minutes of one busy processor core. On this edition of
    the dictionary, without stress and with other splits, g2p-seq2seq reports 33.9% of
    the words for Phonetisaurus and about 31% for a Transformer of two layers
    (https://github.com/cmusphinx/g2p-seq2seq). On older, smaller editions errors are
    fewer: 5.5% and 23.6% in Yao and Zweig, "Sequence-to-Sequence Neural Net Models for
    Grapheme-to-Phoneme Conversion" (Interspeech 2015,
    https://arxiv.org/abs/1506.00196).

    It needs the extra ``g2p``: ``pip install 'captum-attngrad[g2p]'``.

    Args:

        root (str or os.PathLike, optional): Folder that keeps trained models. With None
                    it is ``models`` in the cache folder, which is the value of the
                    environment variable ``CAPTUM_ATTNGRAD_CACHE`` or else
                    ``captum_attngrad`` in the platform's cache folder.
                    Default: None
        retrain (bool, optional): Whether to train even if there is a kept model, which
                    is then replaced.
                    Default: False
        show_progress (bool, optional): Whether training displays a progress bar.
                    Default: True
        dictionary (str or os.PathLike, optional): ``path`` of the data set: another
                    dictionary file than the package's. A model trained on it is
                    another model, and is kept beside.
                    Default: None
        seed (int, optional): Seed of everything random in the training.
                    Default: 0
        stress (bool, optional): Whether the model predicts the stress of vowels.
                    Default: False
        embedding_dim (int, optional): Size of the embeddings.
                    Default: 64
        hidden_size (int, optional): Size of the decoder's state, and of the encoder's
                    in one direction.
                    Default: 128
        dropout (float, optional): Dropout of embeddings and of the last layer's input.
                    Default: 0.05
        letter_dropout (float, optional): Probability with which a letter is replaced by
                    ``"<unk>"`` during training. It makes ``"<unk>"`` a fair replacement
                    for a letter that is masked to measure its effect.
                    Default: 0.02
        epochs (int, optional): Number of passes over the training words.
                    Default: 6
        batch_size (int, optional): Words in a batch.
                    Default: 128
        learning_rate (float, optional): The highest step size of Adam, reached soon and
                    then lowered to 0 linearly.
                    Default: 6e-3

    Returns:
        TrainedG2P:
        - The model, its vocabularies and its error rates.

    Raises:

        ImportError: If the data is needed and the extra is missing.
        FileNotFoundError: If there is no file at ``dictionary``.
        ValueError: If ``epochs`` or ``batch_size`` is below 1, ``seed`` is out of
                    range, or a split of the dictionary is empty.

    Examples::

        >>> trained = trained_g2p()
        >>> trained.pronounce(["knight"])
        [['N', 'AY', 'T']]
        >>> ids, mask = trained.encode(["knight"])
        >>> outputs = trained.model.greedy_decode(ids, mask)
        >>> fed = trained.model.decoder_inputs(outputs)
        >>> trained.model(ids, fed, mask).softmax(dim=-1)  # (1, outputs, classes)
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    settings = G2PSettings(
        dictionary=_digest(dictionary),
        seed=check_seed(seed),
        stress=stress,
        embedding_dim=embedding_dim,
        hidden_size=hidden_size,
        dropout=dropout,
        letter_dropout=letter_dropout,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )
    path = resolve_root(root, "models") / file_name("g2p", _FORMAT, asdict(settings))

    def train() -> bytes:
        return _train(_splits(dictionary, stress), settings, show_progress)

    def load(kept: bytes) -> TrainedG2P:
        return _load(kept, path, settings)

    return load_or_train(path, load, train, retrain, seed)


def _digest(dictionary: PathLike | None) -> str:
    if dictionary is None:  # what the data set checks, so that loading needs no data
        return SHA256
    return hashlib.sha256(Path(dictionary).expanduser().read_bytes()).hexdigest()


def _lowered(words: Sequence[str]) -> list[str]:
    if isinstance(words, str):
        raise TypeError(
            f"Expected a list of words, got the string {words!r:.80}. Pass [word]."
        )
    if not words or not all(words):
        raise ValueError(f"Expected words of at least one letter, got {words!r:.80}.")
    return [word.lower() for word in words]


def _splits(
    dictionary: PathLike | None, stress: bool
) -> dict[str, list[DictionaryEntry]]:
    splits = {}
    for split in ("train", "validation", "test"):
        splits[split] = list(
            PronouncingDictionary(split, stress=stress, path=dictionary)
        )
        if not splits[split]:
            raise ValueError(
                f"dictionary={str(dictionary)!r} has no words in the {split} split. It "
                "needs more words."
            )
    return splits


def _train(
    splits: dict[str, list[DictionaryEntry]], settings: G2PSettings, show_progress: bool
) -> bytes:
    """Train a model and return what the file that keeps it is to hold."""
    start = time.perf_counter()
    model, letters, phonemes = train_g2p(splits["train"], settings, show_progress)
    rates = {}
    for split in ("test", "validation"):
        words = [entry.word for entry in splits[split]]
        found = transcribe(model, letters, phonemes, words)
        right = [entry.pronunciations for entry in splits[split]]
        rates[f"{split}_phoneme_error_rate"] = phoneme_error_rate(found, right)
        rates[f"{split}_word_error_rate"] = word_error_rate(found, right)
    return pack(
        _FORMAT,
        asdict(settings),
        state_dict=model.state_dict(),
        phonemes=phonemes.get_itos(),
        rates=rates,
        training_seconds=time.perf_counter() - start,
    )


def _load(kept: bytes, path: Path, settings: G2PSettings) -> TrainedG2P:
    content = unpack(kept, _FORMAT, asdict(settings))
    letters, phonemes = letter_vocab(), Vocab(content["phonemes"])
    model = build_g2p(letters, phonemes, settings)
    model.load_state_dict(content["state_dict"])
    return TrainedG2P(
        model=model.eval(),
        letters=letters,
        phonemes=phonemes,
        **content["rates"],
        training_seconds=content["training_seconds"],
        path=path,
    )
