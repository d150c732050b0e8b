"""A small decoder and a tokenizer of our own, and the slow truth for its answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.reference import MaterialisedAttention, pair_scores, weight_gradients

WORDS = (
    "<unk> <s> the cat sat on mat red blue dog ran to a house . , and key box is in "
    "big small"
).split()


class WordTokenizer:
    """Words with the space before them, as byte-level tokenizers cut; the calls are
    those of Captum's protocol for tokenizers."""

    def __init__(self, start: bool = False, offsets: bool = True) -> None:
        self._start = start
        self._offsets = offsets
        self.ids = {word: i for i, word in enumerate(WORDS)}

    def _cut(self, text: str, special: bool) -> tuple[list[int], list[Any]]:
        found = list(re.finditer(r" ?(\w+|[^\w\s])", text))
        ids = [self.ids.get(match[1], 0) for match in found]
        spans = [match.span() for match in found]
        if special and self._start:
            return [1, *ids], [(0, 0), *spans]
        return ids, spans

    def __call__(
        self,
        text: str,
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
    ) -> dict[str, Any]:
        if return_offsets_mapping and not self._offsets:
            raise NotImplementedError("no offsets")
        ids, spans = self._cut(text, add_special_tokens)
        return {"input_ids": ids, "offset_mapping": spans}

    def encode(
        self,
        text: str,
        add_special_tokens: bool = True,
        return_tensors: str | None = None,
    ) -> Any:
        ids, _ = self._cut(text, add_special_tokens)
        return ids if return_tensors is None else torch.tensor([ids], dtype=torch.long)

    def decode(self, token_ids: Tensor) -> str:
        return "".join(f" {WORDS[i]}" for i in token_ids.reshape(-1).tolist())

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        return WORDS[ids] if isinstance(ids, int) else [WORDS[i] for i in ids]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        if isinstance(tokens, str):
            return self.ids.get(tokens)
        return [self.ids.get(token) for token in tokens]


class Layer(nn.Module):
    def __init__(self, width: int, attend: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attend = attend
        self.causal = True

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1)
        )
        if self.attend is None:
            x = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            x = self.attend(q, k, v, torch.ones(q.shape[2], q.shape[2]).tril().bool())
        return self.out(x.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """Token ids to logits, two layers with two heads; greedy generation."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 8)
        self.position = nn.Embedding(32, 8)
        self.layers = nn.ModuleList(Layer(8) for _ in range(2))
        self.feed_forward = nn.Linear(8, 8)
        self.head = nn.Linear(8, len(WORDS))

    def forward(self, input_ids: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.embedding(input_ids) + self.position(places)
        for layer in self.layers:
            x = x + layer(x)
            x = x + self.feed_forward(x).tanh()
        return self.head(x)

    def generate(self, input_ids: Tensor, max_new_tokens: int, **_: Any) -> Tensor:
        with torch.no_grad():
            for _ in range(max_new_tokens):
                best = self(input_ids)[:, -1:].argmax(-1)
                input_ids = torch.cat([input_ids, best], dim=1)
        return input_ids


class WithOutput(Decoder):
    """As Hugging Face models: an output object, and arguments that save work."""

    config = SimpleNamespace(vocab_size=len(WORDS), is_encoder_decoder=False)

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[tuple[int, ...], int, bool | None]] = []

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
    ) -> Any:
        self.asked.append((tuple(input_ids.shape), logits_to_keep, use_cache))
        return SimpleNamespace(logits=super().forward(input_ids)[:, -logits_to_keep:])


def decoder(kind: type[Decoder] = Decoder) -> Decoder:
    torch.manual_seed(0)
    return kind().double().eval()


def true_scores(
    model: Decoder,
    prompt: list[int],
    answer: list[int],
    multiply: bool = False,
    center: bool = False,
    score: str = "log_prob",
) -> Tensor:
    """``(answer tokens, layers, heads, queries, keys)`` from the definition: for each
    answer token a forward pass over what precedes it, with materialised weights.
    Queries that come later are 0."""
    length = len(prompt) + len(answer) - 1
    result = torch.zeros(len(answer), 2, 2, length, length, dtype=torch.float64)
    for t, token in enumerate(answer):
        attend = MaterialisedAttention()
        for layer in model.layers:
            layer.attend = attend
        output = model(torch.tensor([prompt + answer[:t]]))
        for layer in model.layers:
            layer.attend = None
        logits = getattr(output, "logits", output)[0, -1]
        value = {
            "logit": logits[token],
            "prob": logits.exp()[token] / logits.exp().sum(),
            "log_prob": logits[token] - logits.exp().sum().log(),
            "log_odds": 2 * (logits.softmax(0)[token] * 2 - 1).atanh(),
        }[score]
        gradients = weight_gradients(value, attend.weights)
        for i, (A, G, allowed) in enumerate(
            zip(attend.weights, gradients, attend.allowed, strict=True)
        ):
            pairs = pair_scores(A, G, allowed, multiply, center)
            result[t, i, :, : pairs.shape[2], : pairs.shape[3]] = pairs[0]
    return result
