r"""Substitutions of words by neighbors that leave the model's answer alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from captum_attngrad.metrics._neighbors import (
    answers_of_variants,
    batch_neighbors,
    first_valid,
    random_substitutions,
)
from captum_attngrad.metrics.base import Batch, Explain, Perturbation
from captum_attngrad.metrics.functional._precision import wide


class SubstitutedTexts(NamedTuple):
    """Variants of texts (batch, variants, tokens), and the variants that count."""

    input_ids: Tensor
    valid: Tensor


@dataclass(frozen=True)
class NeighborSubstitution(Perturbation):
    r"""
    Random tokens become neighbors in the embedding space, and the answer stays the
    same.

    Variants are drawn and run. Those are kept in which the explained class's
    probability moves by at most ``epsilon`` and the predicted class does not change.

    Args:
        fraction (float): How many of the attributable tokens are replaced, rounded up,
            in (0, 1].
            Default: 0.1
        epsilon (float): Largest change of the probability.
            Default: 0.02
        n_variants (int): Variants of each text that are kept.
            Default: 3
        n_draws (int): Variants that are tried.
            Default: 8
        n_neighbors (int): Neighbors of each word.
            Default: 10

    Raises:
        ValueError: On numbers out of range.
    """

    name = "neighbors"
    description = "neighboring words that leave the answer alone"
    paper = "Chakraborty et al., Paying Attention to Attention"
    needs_one_class = True

    fraction: float = 0.1
    epsilon: float = 0.02
    n_variants: int = 3
    n_draws: int = 8
    n_neighbors: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1 or self.epsilon < 0:
            raise ValueError(
                f"fraction is {self.fraction} and epsilon {self.epsilon}; expected a "
                "fraction in (0, 1] and an epsilon of 0 or more."
            )
        if not 1 <= self.n_variants <= self.n_draws:
            raise ValueError(
                f"n_variants is {self.n_variants} and n_draws {self.n_draws}; expected "
                "at least 1 variant and no fewer draws."
            )

    def prepare(self, batch: Batch) -> SubstitutedTexts:
        texts = batch.texts
        ids = texts.input_ids
        counts = texts.attributable.sum(dim=1).tolist()
        tried = random_substitutions(
            ids,
            texts.attributable,
            batch_neighbors(batch.text_model, ids, self.n_neighbors),
            torch.tensor([math.ceil(self.fraction * n - 1e-9) for n in counts]),
            self.n_draws,
            texts.seeds,
        )
        answers = answers_of_variants(
            batch.text_model,
            torch.cat([ids.unsqueeze(1), tried], dim=1),
            *texts.forward_args,
        )
        p = answers[torch.arange(len(texts)), :, batch.target]
        close = (p[:, 1:] - p[:, :1]).abs() <= self.epsilon
        predicted = answers.argmax(dim=2)
        same_class = predicted[:, 1:] == predicted[:, :1]
        order, valid = first_valid(close & same_class, self.n_variants)
        kept = tried.gather(1, order.unsqueeze(2).expand(-1, -1, ids.shape[1]))
        return SubstitutedTexts(kept, valid)

    def explain_again(
        self, batch: Batch, prepared: SubstitutedTexts, explain: Explain
    ) -> Tensor:
        again = [
            explain(ids, batch.texts.attention_mask, batch.target)
            for ids in prepared.input_ids.unbind(dim=1)
        ]
        return torch.stack(again, dim=1)

    def valid(self, prepared: SubstitutedTexts) -> Tensor:
        return prepared.valid

    def affected(self, prepared: SubstitutedTexts) -> Tensor:
        return prepared.valid.any(dim=1)

    def diagnostics(self, prepared: SubstitutedTexts) -> dict[str, Tensor]:
        return {"texts with a neighbor": wide(prepared.valid.any(dim=1))}
