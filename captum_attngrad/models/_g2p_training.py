"""Training the letters-to-phonemes model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from captum_attngrad.datasets import DictionaryEntry
from captum_attngrad.datasets.pronouncing_dictionary import LETTERS
from captum_attngrad.models._epochs import length_sorted_batches
from captum_attngrad.models.seq2seq import AttentionSeq2Seq
from captum_attngrad.text import Vocab, pad_batch

PADDING = "<pad>"
UNKNOWN = "<unk>"
START = "<s>"
END = "</s>"
_EVAL_BATCH = 512
_WARMUP = 0.05  # of all steps
_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class G2PSettings:
    """What a trained model depends on, apart from the machine."""

    dictionary: str  # its SHA-256
    seed: int
    stress: bool
    embedding_dim: int
    hidden_size: int
    dropout: float
    letter_dropout: float
    epochs: int
    batch_size: int
    learning_rate: float


def letter_vocab() -> Vocab:
    """Return the ids of letters, with that of everything else as the default."""
    vocab = Vocab([PADDING, UNKNOWN, *LETTERS])
    vocab.set_default_index(vocab[UNKNOWN])
    return vocab


def phoneme_vocab(entries: Sequence[DictionaryEntry]) -> Vocab:
    """Return the ids of the phonemes that occur in ``entries``."""
    found = {p for e in entries for tokens in e.pronunciations for p in tokens}
    return Vocab([PADDING, START, END, *sorted(found)])


def build_g2p(
    letters: Vocab, phonemes: Vocab, settings: G2PSettings
) -> AttentionSeq2Seq:
    """Return an untrained model for these vocabularies."""
    return AttentionSeq2Seq(
        len(letters),
        len(phonemes),
        embedding_dim=settings.embedding_dim,
        hidden_size=settings.hidden_size,
        padding_idx=letters[PADDING],
        start_idx=phonemes[START],
        end_idx=phonemes[END],
        dropout=settings.dropout,
    )


def train_g2p(
    entries: Sequence[DictionaryEntry], settings: G2PSettings, show_progress: bool
) -> tuple[AttentionSeq2Seq, Vocab, Vocab]:
    """
    Train a model on the first pronunciation of every entry and return it, in eval mode,
    with the vocabularies of letters and phonemes. It draws from PyTorch's generator.
    """
    letters, phonemes = letter_vocab(), phoneme_vocab(entries)
    words = [letters(list(entry.word)) for entry in entries]
    outputs = [[*phonemes(entry.phonemes), phonemes[END]] for entry in entries]
    model = build_g2p(letters, phonemes, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    steps = settings.epochs * -(-len(words) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rise_and_fall(step / steps)
    )
    model.train()
    with tqdm(
        total=steps, desc="Training AttentionSeq2Seq", disable=not show_progress
    ) as bar:
        for _ in range(settings.epochs):
            for rows in length_sorted_batches(words, settings.batch_size):
                ids, mask = pad_batch([words[row] for row in rows], letters[PADDING])
                dropped = torch.rand(ids.shape) < settings.letter_dropout
                ids = ids.masked_fill(dropped & mask, letters[UNKNOWN])
                targets, _ = pad_batch([outputs[row] for row in rows], -1)
                loss = _loss(model, ids, mask, targets)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
                optimizer.step()
                schedule.step()
                bar.update()
    return model.eval(), letters, phonemes


def transcribe(
    model: AttentionSeq2Seq, letters: Vocab, phonemes: Vocab, words: Sequence[str]
) -> list[list[str]]:
    """Return the phonemes that greedy decoding gives for each word."""
    encoded = [letters(list(word)) for word in words]
    order = sorted(range(len(words)), key=lambda row: len(encoded[row]))
    found: list[list[str]] = [[] for _ in words]
    for start in range(0, len(order), _EVAL_BATCH):
        rows = order[start : start + _EVAL_BATCH]
        ids, mask = pad_batch([encoded[row] for row in rows], letters[PADDING])
        # No word of the dictionary has more phonemes than twice its letters.
        device = model.classifier.weight.device
        outputs = model.greedy_decode(
            ids.to(device), mask.to(device), max_outputs=2 * ids.shape[1] + 4
        )
        for row, output in zip(rows, outputs.tolist(), strict=True):
            tokens = phonemes.lookup_tokens(output)
            found[row] = [t for t in tokens if t not in (PADDING, END)]
    return found


def _loss(
    model: AttentionSeq2Seq, ids: Tensor, mask: Tensor, targets: Tensor
) -> Tensor:
    """Return the mean cross-entropy of the outputs; -1 marks padding in targets."""
    outputs = targets.masked_fill(targets == -1, model.padding_idx)
    logits = model(ids, model.decoder_inputs(outputs), mask)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


def _rise_and_fall(share: float) -> float:
    """Return the factor of the learning rate after this share of the steps."""
    return min((share + 1e-3) / _WARMUP, (1 - share) / (1 - _WARMUP), 1.0)
