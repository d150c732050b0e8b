"""Text models whose true explanation is known, and the methods that find it or not."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_attngrad.text.text_model import TextBatch, TextModel

PAD, UNK = 0, 1
N_WORDS = 40
DIM = 3

Explain = Callable[[Tensor, Tensor, Tensor], Tensor]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class NumberVocabulary:
    """The word "w7" has the id 7."""

    def __call__(self, tokens: list[str]) -> list[int]:
        special = {"<pad>": PAD, "<unk>": UNK}
        return [special[t] if t in special else int(t[1:]) for t in tokens]


class BagOfWords(nn.Module):
    """The log-odds are the sum of what each word's embedding says along one direction.

    A word's first number is its weight, the others (the same for words in one of four
    topics) say what it is about and nothing about the class: so neighbors in the
    embedding space are words of a topic, with weights of either sign.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        table = torch.zeros(N_WORDS, DIM)
        topic = torch.arange(N_WORDS) % 4
        table[:, 0] = torch.randn(N_WORDS, generator=generator)
        table[:, 1] = torch.cos(topic * math.pi / 2) * 4
        table[:, 2] = torch.sin(topic * math.pi / 2) * 4
        table[[PAD, UNK]] = 0
        self.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.direction = nn.Linear(DIM, 1, bias=False)
        with torch.no_grad():
            self.direction.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = self.direction(self.embedding(input_ids))
        log_odds = (words * attention_mask.unsqueeze(2)).sum(dim=1)
        return torch.cat([-log_odds, log_odds], dim=1) / 2


class PlantedAttention(nn.Module):
    """Multi-head self-attention in which every token looks at the one planted word.

    Word 2 speaks for class 1, word 3 for class 0, all others say nothing.
    """

    def __init__(self, d: int = 8, heads: int = 2) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.embedding = nn.Embedding(N_WORDS, d, padding_idx=PAD)
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.classifier = nn.Linear(d, 2)
        eye = torch.eye(d)
        with torch.no_grad():
            self.embedding.weight.mul_(0.3)
            self.embedding.weight[:, 0] = 0.0
            self.embedding.weight[:, 1] = 1.0  # gives all queries their direction
            for word, sign in ((2, 1.0), (3, -1.0)):
                self.embedding.weight[word] = 0.0
                self.embedding.weight[word, 0] = sign
                self.embedding.weight[word, 2] = 2.0
                self.embedding.weight[word, 1] = 1.0
            self.embedding.weight[[PAD, UNK]] = 0.0
            query = torch.zeros(d, d)
            query[0, 1] = query[d // heads, 1] = 6.0
            key = torch.zeros(d, d)
            key[0, 2] = key[d // heads, 2] = 1.0
            value = eye.clone()
            value[d // heads] = eye[0]  # the second head reads the same
            self.attention.in_proj_weight.copy_(torch.cat([query, key, value]))
            self.attention.in_proj_bias.normal_(std=0.01)
            self.attention.out_proj.weight.copy_(eye)
            self.attention.out_proj.bias.zero_()
            self.classifier.weight.zero_()
            self.classifier.bias.zero_()
            self.classifier.weight[1, 0] = self.classifier.weight[1, d // heads] = 2.0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        attended, _ = self.attention(
            x, x, x, key_padding_mask=~attention_mask, need_weights=False
        )
        mask = attention_mask.unsqueeze(2)
        pooled = (attended * mask).sum(dim=1) / mask.sum(dim=1)
        logits: Tensor = self.classifier(pooled)
        return logits


def text_model_of(model: nn.Module) -> TextModel:
    embedding = model.get_submodule("embedding")
    return TextModel.from_torch(
        model.eval(), str.split, NumberVocabulary(), embedding=embedding
    )


def batch_of(ids: list[list[int]], seed: int = 0) -> TextBatch:
    """A padded batch without special tokens."""
    longest = max(len(row) for row in ids)
    padded = torch.tensor([row + [PAD] * (longest - len(row)) for row in ids])
    lengths = torch.tensor([len(row) for row in ids])
    mask = torch.arange(longest) < lengths.unsqueeze(1)
    return TextBatch(
        tokens=tuple(tuple(f"w{i}" for i in row) for row in ids),
        input_ids=padded,
        attention_mask=mask,
        attributable=mask,
        seeds=tuple(1000 * seed + i for i in range(len(ids))),
    )


def random_texts(n: int = 40, low: int = 5, high: int = 14) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(low, high, (n,), generator=generator).tolist()
    return [
        torch.randint(2, N_WORDS, (length,), generator=generator).tolist()
        for length in lengths
    ]


def planted_texts(n: int = 30) -> list[list[int]]:
    """Filler with one word that decides the class."""
    generator = torch.Generator().manual_seed(2)
    texts = []
    for i in range(n):
        length = 5 + i % 6
        row = torch.randint(4, N_WORDS, (length,), generator=generator).tolist()
        row[int(torch.randint(0, length, (), generator=generator))] = 2 + i % 2
        texts.append(row)
    return texts


def predicted(text_model: TextModel, batch: TextBatch) -> Tensor:
    with torch.no_grad():
        return text_model.logits(batch.input_ids, batch.attention_mask).argmax(dim=1)


def occlusion(text_model: TextModel) -> Explain:
    """The drop of the class's log-odds when each token alone becomes <unk>. For a bag
    of words this is what each word adds: the truth."""

    def log_odds(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        logits = text_model.logits(ids, mask).double()
        own = logits.gather(1, target.unsqueeze(1)).squeeze(1)
        return own - logits.scatter(1, target.unsqueeze(1), -torch.inf).amax(dim=1)

    def explain(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        scores = torch.zeros(ids.shape, dtype=torch.float64)
        with torch.no_grad():
            full = log_odds(ids, mask, target)
            for i in range(ids.shape[1]):
                changed = ids.clone()
                changed[:, i] = UNK
                scores[:, i] = full - log_odds(changed, mask, target)
        return scores.masked_fill(~mask, 0)

    return explain


def gradient_x_embedding(text_model: TextModel) -> Explain:
    """Not invariant: the embedding itself is a factor."""

    def explain(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        embedded = text_model.embed(ids).requires_grad_()
        logits = text_model.logits_from_embeddings(embedded, mask)
        chosen = logits.gather(1, target.unsqueeze(1)).sum()
        (gradient,) = torch.autograd.grad(chosen, embedded)
        return (gradient * embedded).detach().sum(dim=2).masked_fill(~mask, 0)

    return explain


def random_scores(seed: int = 0) -> Explain:
    """Draws anew in each call."""
    generator = torch.Generator().manual_seed(seed)

    def explain(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        scores = torch.rand(ids.shape, generator=generator) * 2 - 1
        return scores.masked_fill(~mask, 0)

    return explain
