"""What an explanation is judged by, one value a review."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.search.subjects import Batch, Subject, Texts
from captum_attngrad.metrics import Comprehensiveness, Sufficiency
from captum_attngrad.metrics.functional import masked_answers, top_token_masks

Array = npt.NDArray[np.float64]

# Name, and whether higher is better.
MEASURES = {
    "comprehensiveness": True,
    "sufficiency": False,
    "LOO tau": True,
    "polarity violation": False,
    "inhibitor gain": True,
}
# Share of the tokens that go as inhibitors: those with the lowest signed scores.
INHIBITORS = 0.2


class Judge:
    """Remembers the probability of every variant of the texts that was ever asked."""

    def __init__(self, subject: Subject, texts: Texts) -> None:
        self.subject = subject
        self.texts = texts
        self._known: list[dict[bytes, float]] = [{} for _ in texts.batches]
        self.effects = [
            self._leave_one_out(number) for number in range(len(texts.batches))
        ]

    def probabilities(self, number: int, removed: Tensor) -> Tensor:
        """p of the target, for boolean ``removed`` (batch, variants, tokens)."""
        batch, known = self.texts.batches[number], self._known[number]
        keys = [
            [
                bytes([row % 256, row // 256]) + variant.numpy().tobytes()
                for variant in of
            ]
            for row, of in enumerate(removed)
        ]
        wanted = {
            key: (row, j) for row, of in enumerate(keys) for j, key in enumerate(of)
        }
        wanted = {key: place for key, place in wanted.items() if key not in known}
        if wanted:
            rows = torch.tensor([row for row, _ in wanted.values()])
            variants = torch.stack([removed[row, j] for row, j in wanted.values()])
            found = masked_answers(
                self.subject.probabilities,
                batch.ids[rows],
                variants.unsqueeze(1),
                batch.target[rows],
                self.subject.replacement,
                (batch.mask[rows],),
                4096,
            ).p
            known.update(zip(wanted, found.squeeze(1).tolist(), strict=True))
        return torch.tensor([[known[key] for key in of] for of in keys])

    def _leave_one_out(self, number: int) -> Tensor:
        batch = self.texts.batches[number]
        tokens = batch.ids.shape[1]
        single = torch.eye(tokens, dtype=torch.bool).expand(len(batch.ids), -1, -1)
        removed = single & batch.attributable.unsqueeze(1)
        nothing = torch.zeros_like(removed[:, :1])
        p = self.probabilities(number, torch.cat([nothing, removed], dim=1))
        return p[:, :1] - p[:, 1:]

    def judge(self, scores: Sequence[Tensor]) -> dict[str, Array]:
        """Values in the order of the reviews, for scores of each batch."""
        values = {name: np.zeros(self.texts.count) for name in MEASURES}
        for number, (batch, score) in enumerate(
            zip(self.texts.batches, scores, strict=True)
        ):
            found = self._judge_batch(number, batch, score.detach().float())
            for name, of_batch in found.items():
                values[name][batch.rows] = of_batch
        return values

    def _judge_batch(
        self, number: int, batch: Batch, score: Tensor
    ) -> dict[str, Array]:
        comprehensive, sufficient = Comprehensiveness(), Sufficiency()
        lowest = top_token_masks(-score, batch.attributable, [INHIBITORS])
        parts = [
            torch.zeros_like(lowest),
            comprehensive.masks(score, batch.attributable),
            sufficient.masks(score, batch.attributable),
            lowest,
        ]
        p = self.probabilities(number, torch.cat(parts, dim=1))
        full, without_top, only_top, without_lowest = p.split(
            [part.shape[1] for part in parts], dim=1
        )
        full = full.squeeze(1)
        taus, violations = [], []
        for row, effects in enumerate(self.effects[number]):
            at = batch.attributable[row]
            mine, effect = score[row, at].numpy(), effects[at].numpy()
            taus.append(kendall_tau_b(mine, effect))
            strongest = np.abs(mine).argmax()
            violations.append(
                float(np.sign(mine[strongest]) != np.sign(effect[strongest]))
            )
        return {
            "comprehensiveness": (full[:, None] - without_top).mean(dim=1).numpy(),
            "sufficiency": (full[:, None] - only_top).mean(dim=1).numpy(),
            "LOO tau": np.array(taus),
            "polarity violation": np.array(violations),
            "inhibitor gain": (without_lowest.squeeze(1) - full).numpy(),
        }


def kendall_tau_b(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]
) -> float:
    """Rank correlation with ties (Kendall 1945); 0 where one side is constant."""
    one = np.sign(first[:, None] - first[None, :])
    two = np.sign(second[:, None] - second[None, :])
    norm = np.sqrt((one**2).sum() * (two**2).sum())
    return float((one * two).sum() / norm) if norm else 0.0
