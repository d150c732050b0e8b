"""Small models that several tests share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Fused self-attention with two heads."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (2, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1)
        )
        mask = None if mask is None else mask[:, None, None]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(x.transpose(1, 2).flatten(2))


class Classifier(nn.Module):
    """Token ids (or, with ``embed=False``, embeddings) to logits."""

    def __init__(self, classes: tuple[int, ...] = (3,), embed: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8) if embed else nn.Identity()
        self.layers = nn.ModuleList(SelfAttention() for _ in range(2))
        self.feed_forward = nn.Linear(8, 8)
        self.classes = classes
        size = int(torch.tensor(classes).prod()) if classes else 1
        self.head = nn.Linear(8, size)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embedding(x)
        for layer in self.layers:
            x = x + layer(x, mask)
            x = x + self.feed_forward(x).tanh()
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        return self.head(x.mean(1)).unflatten(-1, self.classes or (1,))


def classifier(classes: tuple[int, ...] = (3,), embed: bool = True) -> Classifier:
    torch.manual_seed(0)
    return Classifier(classes, embed).double().eval()


def token_ids() -> tuple[Tensor, Tensor]:
    """Ids and a padding mask (True: a token)."""
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 3:] = False
    return torch.arange(20).view(4, 5), mask
