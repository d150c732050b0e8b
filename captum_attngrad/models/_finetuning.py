"""Fine-tuning all-MiniLM-L6-v2 with a classification head."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from captum_attngrad.datasets import MovieReview
from captum_attngrad.models._epochs import length_sorted_batches
from captum_attngrad.models._minilm_package import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    read_checked,
)

_EVAL_BATCH = 64


@dataclass(frozen=True)
class FinetuningSettings:
    """What a fine-tuned model depends on, apart from the data and the machine."""

    seed: int
    min_abs_rating: float
    epochs: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float


def _transformers() -> Any:
    # Its annotations differ between releases and leave out arguments that it takes.
    return importlib.import_module("transformers")


def build_tokenizer() -> Any:
    """Return the model's tokenizer, a ``PreTrainedTokenizerFast``."""
    from tokenizers import Tokenizer

    # From the checked bytes, so that nothing else in the folder has a say.
    tokenizer = Tokenizer.from_str(read_checked(TOKENIZER).decode("utf-8"))
    # The file pads and cuts to 128 tokens, for its own purpose.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return _transformers().PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
    )


def build_classifier() -> Any:
    """Return a ``BertForSequenceClassification`` with random weights."""
    transformers = _transformers()
    config = json.loads(read_checked(CONFIG))
    del config["_name_or_path"], config["architectures"], config["transformers_version"]
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            **config,
            num_labels=2,
            id2label={0: "negative", 1: "positive"},
            label2id={"negative": 0, "positive": 1},
            attn_implementation="sdpa",
        )
    )


def load_pretrained_body(model: Any) -> None:
    """Give everything but the head the weights of all-MiniLM-L6-v2."""
    from safetensors.torch import load

    state = load(read_checked(WEIGHTS))
    state.pop("embeddings.position_ids", None)  # a buffer of older transformers
    model.bert.load_state_dict(state)


def finetune(
    model: Any,
    tokenizer: Any,
    reviews: Sequence[MovieReview],
    settings: FinetuningSettings,
    show_progress: bool,
) -> None:
    """Train all of the model, in place."""
    encoded = _encode(reviews, tokenizer)
    labels = torch.tensor([review.label for review in reviews])
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    steps = settings.epochs * -(-len(encoded) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, _warmup_then_linear_decay(settings.warmup_steps, steps)
    )
    model.train()
    with tqdm(total=steps, desc="Fine-tuning MiniLM", disable=not show_progress) as bar:
        for _ in range(settings.epochs):
            for rows in length_sorted_batches(encoded, settings.batch_size):
                ids, mask = _pad([encoded[row] for row in rows], tokenizer)
                logits = model(input_ids=ids, attention_mask=mask).logits
                loss = F.cross_entropy(logits, labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    model.eval()


def classifier_accuracy(
    model: Any, tokenizer: Any, reviews: Sequence[MovieReview]
) -> float:
    """Return the share of ``reviews`` whose label the model, in eval mode, predicts."""
    encoded = _encode(reviews, tokenizer)
    order = sorted(range(len(reviews)), key=lambda row: len(encoded[row]))
    correct = 0
    with torch.no_grad():
        for start in range(0, len(order), _EVAL_BATCH):
            rows = order[start : start + _EVAL_BATCH]
            ids, mask = _pad([encoded[row] for row in rows], tokenizer)
            predicted = model(input_ids=ids, attention_mask=mask).logits.argmax(dim=1)
            labels = torch.tensor([reviews[row].label for row in rows])
            correct += int((predicted == labels).sum())
    return correct / len(reviews)


def _warmup_then_linear_decay(warmup: int, steps: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return factor


def _encode(reviews: Sequence[MovieReview], tokenizer: Any) -> list[list[int]]:
    texts = [review.text for review in reviews]
    ids: list[list[int]] = tokenizer(texts, truncation=True)["input_ids"]
    return ids


def _pad(encoded: list[list[int]], tokenizer: Any) -> tuple[Tensor, Tensor]:
    # Not text.pad_batch: here the mask goes to a model that wants integers.
    padded = tokenizer.pad({"input_ids": encoded}, return_tensors="pt")
    return padded["input_ids"], padded["attention_mask"]
