"""A small attention model whose true explanation is known."""

import torch
from torch import Tensor, nn

from captum_attngrad.evaluation import TextModel

WORDS = ["<pad>", "<unk>", "good", "bad", "fine", "film", "the", "plot", "actor"]
# Log-odds for "positive" that a word's value holds; the rest say nothing.
VALUES = {"good": 9.0, "bad": -9.0, "fine": 5.0}


class Vocabulary:
    """Maps tokens to ids, unknown ones to <unk>."""

    def __call__(self, tokens: list[str]) -> list[int]:
        return [WORDS.index(token) if token in WORDS else 1 for token in tokens]


class PlantedModel(nn.Module):
    """Attention looks at every opinion word, and at "the" although it says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 2)
        table = torch.zeros(len(WORDS), 2)
        for word, value in VALUES.items():
            table[WORDS.index(word)] = torch.tensor([2.0, value])
        table[WORDS.index("the")] = torch.tensor([3.0, 0.0])
        self.embedding.weight = nn.Parameter(table)
        self.attention = PlantedAttention()
        self.dropout = nn.Dropout(0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        log_odds = self.dropout(
            self.attention(self.embedding(input_ids), attention_mask)
        )
        return torch.cat([-log_odds, log_odds], dim=1) / 2


class PlantedAttention(nn.Module):
    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        scores = embedded[..., 0].masked_fill(~mask, -torch.inf)
        weights = scores.softmax(dim=1)
        return torch.bmm(weights.unsqueeze(1), embedded[..., 1:]).squeeze(2)


def planted_text_model() -> TextModel:
    model = PlantedModel()
    return TextModel.from_torch(
        model,
        str.split,
        Vocabulary(),
        embedding=model.embedding,
        attention_layers=model.attention,
    )


def planted_texts(n: int = 40) -> list[str]:
    """Texts with one word for a class, sometimes one against it, among filler."""
    generator = torch.Generator().manual_seed(3)
    filler = ["film", "plot", "actor", "the"]
    texts = []
    for i in range(n):
        length = 6 + i % 7
        words = [
            filler[int(torch.randint(0, len(filler), (), generator=generator))]
            for _ in range(length)
        ]
        place = int(torch.randint(0, length, (), generator=generator))
        words[place] = ["good", "bad"][i % 2]
        if i % 3 == 0:
            words[(place + 1) % length] = "fine"
        texts.append(" ".join(words))
    return texts
