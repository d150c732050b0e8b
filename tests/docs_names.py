"""What the examples in docstrings talk about: "model", "input_ids" and so on."""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import captum
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import captum_attngrad
from captum_attngrad.models import AttentionLSTMClassifier, AttentionSeq2Seq
from captum_attngrad.text import Vocab, WordTokenizer
from tests.attr.language_models import WORDS
from tests.attr.language_models import WordTokenizer as LanguageTokenizer
from tests.metrics import known

PACKAGES = (
    "attr capture datasets evaluation metrics metrics.functional models text "
    "verification visualization"
).split()


class Classifier(nn.Module):
    """An encoder with a mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        padding = None if attention_mask is None else ~attention_mask.bool()
        x = self.encoder(self.embedding(input_ids), src_key_padding_mask=padding)
        return self.head(x.mean(dim=1))


class ChatTokenizer(LanguageTokenizer):
    """Any word has an id, and chats have a line for each message."""

    chat_template = "lines"

    def __init__(self) -> None:
        super().__init__(start=True)
        self.words = dict(enumerate(WORDS))

    def _cut(self, text: str, special: bool) -> tuple[list[int], list[Any]]:
        ids, spans = super()._cut(text, special)
        for i, (start, end) in enumerate(spans):
            word = text[start:end].strip()
            if ids[i] == 0:
                ids[i] = len(WORDS) + zlib.crc32(word.encode()) % 900
                self.words[ids[i]] = word
        return ids, spans

    def decode(self, token_ids: Tensor) -> str:
        return "".join(f" {self.words[i]}" for i in token_ids.reshape(-1).tolist())

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return [self.words[i] for i in ids]

    def apply_chat_template(
        self, messages: list[dict[str, str]], tokenize: bool, **_: Any
    ) -> str:
        assert not tokenize
        return "".join(f"{m['role']}: {m['content']}\n" for m in messages)


class Translator(nn.Module):
    """``nn.Transformer`` on ids; with a source alone, its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        core = nn.Transformer(8, 2, 2, 2, 16, 0.0, batch_first=True)
        self.encoder, self.decoder = core.encoder, core.decoder
        self.encoder.enable_nested_tensor = False
        self.head = nn.Linear(8, 2)

    def forward(self, source: Tensor, target: Tensor | None = None) -> Any:
        x = self.encoder(self.embedding(source))
        if target is None:
            return self.head(x[:, 0])
        return self.decoder(self.embedding(target), x)[:, -1].sum(dim=1)


def inner_names() -> dict[str, Any]:
    """What the modules define without exporting it, which examples may use too."""
    names: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("captum_attngrad."):
            names |= {n: v for n, v in vars(module).items() if n[0] != "_"}
    return names


def public_names() -> dict[str, Any]:
    """All that the packages export, as after importing it."""
    names: dict[str, Any] = {}
    for package in PACKAGES:
        try:
            module = importlib.import_module(f"captum_attngrad.{package}")
        except ModuleNotFoundError:
            continue
        names |= {name: getattr(module, name) for name in module.__all__}
    names |= {name: getattr(captum_attngrad, name) for name in captum_attngrad.__all__}
    return names | {
        "captum": captum,
        "np": np,
        "torch": torch,
        "Saliency": captum.attr.Saliency,
        "TextTemplateInput": captum.attr.TextTemplateInput,
    }


def _classifier() -> dict[str, Any]:
    model = Classifier().eval()
    input_ids = torch.randint(4, 40, (2, 6))
    attention_mask = torch.ones(2, 6, dtype=torch.bool)
    return {
        "model": model,
        "method": captum_attngrad.AttentionGradient(model),
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "attributable": attention_mask,
        "attributions": torch.randn(2, 6),
        "scores": torch.randn(2, 6),
        "predicted": model(input_ids).argmax(-1),
        "forward": lambda ids: model(ids).softmax(-1),
        "removed": torch.eye(6, dtype=torch.bool).expand(2, 6, 6),
        "unk_id": 1,
    }


def _judged() -> dict[str, Any]:
    """A model whose texts can be changed and explained again."""
    model = known.PlantedAttention()
    text_model = known.text_model_of(model)
    batch = known.batch_of(known.planted_texts(3))
    target = known.predicted(text_model, batch)
    names = _classifier()
    return names | {
        "text_model": text_model,
        "batch": batch,
        "target": target,
        "explain": known.occlusion(text_model),
        "MyClassifier": type("MyClassifier", (nn.Module,), {}),
        "MyEncoder": type("MyEncoder", (nn.Module,), {}),
    }


def _compared() -> dict[str, Any]:
    names = _judged()
    compare = partial(
        captum_attngrad.compare,
        methods=["attention_gradient", "random"],
        metrics=["comprehensiveness"],
        show_progress=False,
    )
    texts = ["w5 w2 w9 w7", "w3 w8 w11", "w6 w2 w12 w20"]
    text_model = names["text_model"]
    result = captum_attngrad.compare(
        text_model,
        texts,
        methods=["attention_gradient", "random"],
        metrics=["comprehensiveness"],
        show_progress=False,
    )
    return names | {"compare": compare, "texts": texts, "result": result}


def _text() -> dict[str, Any]:
    names = _compared()
    vocab = Vocab(["<pad>", "<unk>", "a", "fine", "film", "it", "drags", "on", "."])
    vocab.set_default_index(1)
    model = AttentionLSTMClassifier(len(vocab), 4, 3).eval()
    return names | {"model": model, "vocab": vocab, "WordTokenizer": WordTokenizer}


def _huggingface_text() -> dict[str, Any]:
    bert = _bert()
    return _compared() | {"model": bert["model"], "tokenizer": bert["tokenizer"]}


def _bert() -> dict[str, Any]:
    pytest.importorskip("transformers")
    from tests.tiny_bert import tiny_bert, tiny_tokenizer

    input_ids = torch.tensor([[2, 5, 9, 7, 3], [2, 6, 10, 8, 3]])
    return {
        "model": tiny_bert(),
        "tokenizer": tiny_tokenizer(),
        "input_ids": input_ids,
        "special_tokens": (input_ids == 2) | (input_ids == 3),
    }


def _translator() -> dict[str, Any]:
    source, target = torch.randint(0, 40, (2, 6)), torch.randint(0, 40, (2, 4))
    return {
        "model": Translator().eval(),
        "input_ids": source,
        "source": source,
        "target": target,
    }


def _language_model() -> dict[str, Any]:
    pytest.importorskip("transformers")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=None,
        bos_token_id=1,
        eos_token_id=None,
    )
    # Any token that it answers with has a word.
    tokenizer = ChatTokenizer()
    tokenizer.words = {**{i: f"word{i}" for i in range(1000)}, **tokenizer.words}
    return {
        "model": LlamaForCausalLM(config).eval(),
        "tokenizer": tokenizer,
        "sources": ["The museum opens at nine.", "A ticket costs 12 coins."],
    }


def _sequence() -> dict[str, Any]:
    pytest.importorskip("transformers")
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=20,
        d_model=8,
        d_kv=4,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    t5 = T5ForConditionalGeneration(config).eval()
    t5.generation_config.max_new_tokens = 4
    source = torch.randint(3, 12, (2, 5))
    translation = torch.randint(3, 12, (2, 4))
    model = AttentionSeq2Seq(12, 12, 5, 4).eval()
    mask = torch.ones(2, 5, dtype=torch.long)
    return {
        "model": model,
        "source": source,
        "translation": translation,
        "start": torch.ones(2, 1, dtype=torch.long),
        "t5": t5,
        "ids": source,
        "input_ids": source,
        "mask": mask,
        "labels": translation,
        "fed": torch.cat([torch.zeros(2, 1).long(), translation[:, :-1]], dim=1),
    }


def _seq2seq() -> dict[str, Any]:
    model = AttentionSeq2Seq(12, 12, 5, 4).eval()
    ids = torch.randint(3, 12, (2, 5))
    return {"model": model, "ids": ids, "mask": torch.ones(2, 5, dtype=torch.bool)}


def _shown() -> dict[str, Any]:
    pytest.importorskip("IPython")  # visualize_text shows with it
    scores = torch.tensor([[0.1, 0.8, 0.0]])
    tokens = [["a", "fine", "film"]]
    return _classifier() | {
        "input_ids": torch.randint(4, 40, (1, 6)),
        "records": captum_attngrad.text_records(tokens, scores, 0.9, 1, 1, 1),
        "visualize_text": captum.attr.visualization.visualize_text,
        "pieces": ["un", "##watch", "##able", "."],
        "output_tokens": ["N", "AY", "T"],
    }


def _alignment() -> dict[str, Any]:
    return _shown() | {"scores": torch.randn(3, 5)}


def _pieces() -> dict[str, Any]:
    return _shown() | {"scores": torch.randn(3, 4)}


# By the module of the docstring, or by the name of the object: the longest that fits.
NAMES: dict[str, Callable[[], dict[str, Any]]] = {
    "captum_attngrad": _classifier,
    "captum_attngrad.attr.llm": _language_model,
    "captum_attngrad.attr.path": _bert,
    "captum_attngrad.attr.propagation": _translator,
    "captum_attngrad.attr.sequence": _sequence,
    "captum_attngrad.evaluation": _compared,
    "captum_attngrad.metrics": _judged,
    "captum_attngrad.models.seq2seq": _seq2seq,
    "captum_attngrad.text.text_model": _text,
    "captum_attngrad.text.word_pieces": _pieces,
    "captum_attngrad.visualization": _shown,
    "captum_attngrad.visualization.alignment": _alignment,
    "captum_attngrad.visualization.word_pieces": _pieces,
}
BY_OBJECT: dict[str, Callable[[], dict[str, Any]]] = {
    "TextModel.from_huggingface": _huggingface_text,
}


def names_for(module: str, name: str) -> dict[str, Any]:
    """The stand-ins for the example of the object ``name`` in ``module``."""
    for ending, make in BY_OBJECT.items():
        if name.endswith(f".{ending}"):
            return make()
    fitting = [prefix for prefix in NAMES if f"{module}.".startswith(f"{prefix}.")]
    return NAMES[max(fitting, key=len)]()
