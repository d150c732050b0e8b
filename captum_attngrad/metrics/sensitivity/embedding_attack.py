r"""Moving the embeddings of a text, by an attack or at random."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from captum.robust import FGSM, PGD
from torch import Tensor, nn

from captum_attngrad.metrics._neighbors import embedding_table
from captum_attngrad.metrics._parameters import differentiable
from captum_attngrad.metrics.base import Batch, Explain, Perturbation
from captum_attngrad.metrics.functional._precision import wide
from captum_attngrad.text.text_model import TextBatch, TextModel

#: The attacks, with their papers.
ATTACKS = {
    "fgsm": "Goodfellow et al. 2015, Explaining and Harnessing Adversarial Examples",
    "pgd": "Madry et al. 2018, Towards Deep Learning Models Resistant to Adversarial "
    "Attacks",
}
_PGD_STEPS = 7


@contextmanager
def temporary_words(
    text_model: TextModel, batch: TextBatch, embedded: Tensor
) -> Iterator[Tensor]:
    r"""
    Inside the block every attributable token of the batch has its own word id and its
    own embedding, so that *any* method can explain moved embeddings: it gets ids as
    always.

    Args:
        text_model (TextModel): The model, whose ``nn.Embedding`` has more rows inside
            the block.
        batch (TextBatch): The texts.
        embedded (Tensor): The tokens' embeddings, shape (batch, tokens, dim).

    Yields:
        *Tensor*: Token ids, shape (batch, tokens).
    """
    table = embedding_table(text_model)
    module = text_model.embedding
    assert isinstance(module, nn.Embedding)
    chosen = batch.attributable
    ids = batch.input_ids.clone()
    n_words = int(chosen.sum())
    ids[chosen] = torch.arange(len(table), len(table) + n_words, device=ids.device)
    original = module.weight
    extended = torch.cat([table, embedded[chosen].detach().to(table)])
    module.weight = nn.Parameter(extended, requires_grad=original.requires_grad)
    module.num_embeddings = len(extended)
    try:
        yield ids
    finally:
        module.weight = original
        module.num_embeddings = len(original)


def attack_embeddings(
    text_model: TextModel,
    batch: TextBatch,
    target: Tensor,
    radius: float,
    attack: str = "pgd",
) -> Tensor:
    r"""
    Moves the embeddings away from a class with Captum's ``robust.FGSM`` (one step of
    ``radius`` in each dimension) or ``robust.PGD`` (7 steps of a quarter of ``radius``,
    kept within ``radius`` of the start in each dimension).

    Args:
        text_model (TextModel): The model, in evaluation mode.
        batch (TextBatch): The texts; only attributable tokens are moved.
        target (Tensor): The classes to move away from, shape (batch,).
        radius (float): Largest move of a number.
        attack (str): "fgsm" or "pgd".
            Default: "pgd"

    Returns:
        *Tensor*: Embeddings, shape (batch, tokens, dim).
    """
    start = text_model.embed(batch.input_ids)
    movable = batch.attributable.unsqueeze(2).expand_as(start).to(start)
    forward = text_model.probabilities_from_embeddings
    with (
        torch.enable_grad(),
        differentiable(text_model.model),
        warnings.catch_warnings(),
    ):
        # Captum warns at each step that it requires the gradient itself.
        warnings.filterwarnings("ignore", "Input Tensor", UserWarning)
        attacker: Any = FGSM(forward) if attack == "fgsm" else PGD(forward)
        steps = () if attack == "fgsm" else (radius / 4, _PGD_STEPS)
        # Captum treats small gradients as zero; a confident model has no others.
        getattr(attacker, "fgsm", attacker).zero_thresh = 0.0
        moved = attacker.perturb(
            start, radius, *steps, target, batch.forward_args, mask=movable
        )
    detached: Tensor = moved.detach()
    return detached


def noise_like(move: Tensor, attributable: Tensor, seeds: tuple[int, ...]) -> Tensor:
    """A move of the same size, (batch, tokens, dim): each number keeps its magnitude
    and gets a random sign."""
    noise = torch.zeros_like(move)
    for row, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        chosen = move[row, attributable[row]]
        sign = torch.randint(0, 2, chosen.shape, generator=generator) * 2 - 1
        noise[row, attributable[row]] = chosen.abs() * sign.to(chosen)
    return noise


@dataclass(frozen=True)
class AttackedEmbeddings:
    r"""
    The result of an attack on the embeddings of a batch.

    Args:
        embedded (Tensor): Embeddings after the attack, shape (batch, tokens, dim).
        success (Tensor): Boolean, shape (batch,): whether the class changed.
        noise (Tensor): Embeddings after a random move of the same size, shape (batch,
            draws, tokens, dim).
        noise_valid (Tensor): Boolean, shape (batch, draws): draws that keep the class.
    """

    embedded: Tensor
    success: Tensor
    noise: Tensor
    noise_valid: Tensor


def _spread(table: Tensor) -> float:
    """Standard deviation of the embeddings' numbers: the unit of moves."""
    return float(table.double().std())


def _explain_moved(batch: Batch, moved: Tensor, explain: Explain) -> Tensor:
    """Scores for moved embeddings (batch, variants, tokens, dim)."""
    again = []
    for embedded in moved.unbind(dim=1):
        with temporary_words(batch.text_model, batch.texts, embedded) as ids:
            again.append(explain(ids, batch.texts.attention_mask, batch.target))
    return torch.stack(again, dim=1)


@dataclass(frozen=True)
class EmbeddingAttack(Perturbation):
    r"""
    ``attack_embeddings``, and for comparison random moves of the same size.

    Args:
        attack (str): "fgsm" or "pgd".
            Default: "pgd"
        radius (float): Largest move of a number, relative to the standard deviation of
            the numbers in the embedding table.
            Default: 0.2
        n_noise (int): Random moves of each text.
            Default: 3

    Raises:
        ValueError: On another ``attack`` or numbers out of range.
    """

    needs_one_class = True

    attack: str = "pgd"
    radius: float = 0.2
    n_noise: int = 3

    def __post_init__(self) -> None:
        if self.attack not in ATTACKS:
            raise ValueError(
                f"attack is {self.attack!r}; expected one of: {', '.join(ATTACKS)}."
            )
        if self.radius <= 0 or self.n_noise < 1:
            raise ValueError(
                f"radius is {self.radius} and n_noise {self.n_noise}; expected a "
                "positive radius and 1 random move or more."
            )
        object.__setattr__(self, "name", f"{self.attack}_attack")
        object.__setattr__(self, "paper", ATTACKS[self.attack])

    def prepare(self, batch: Batch) -> AttackedEmbeddings:
        texts = batch.texts
        radius = self.radius * _spread(embedding_table(batch.text_model))
        start = batch.text_model.embed(texts.input_ids)
        attacked = attack_embeddings(
            batch.text_model, texts, batch.target, radius, self.attack
        )
        noise = [
            start
            + noise_like(
                attacked - start,
                texts.attributable,
                tuple(seed + i for seed in texts.seeds),
            )
            for i in range(self.n_noise)
        ]
        with torch.no_grad():
            right = torch.stack(
                [
                    batch.text_model.probabilities_from_embeddings(
                        embedded, *texts.forward_args
                    ).argmax(dim=1)
                    == batch.target
                    for embedded in (start, attacked, *noise)
                ],
                dim=1,
            )
        return AttackedEmbeddings(
            embedded=attacked,
            success=right[:, 0] & ~right[:, 1],
            noise=torch.stack(noise, dim=1),
            noise_valid=right[:, 2:] & right[:, :1],
        )

    def explain_again(
        self, batch: Batch, prepared: AttackedEmbeddings, explain: Explain
    ) -> Tensor:
        """Attacked text, then the random variants."""
        moved = torch.cat([prepared.embedded.unsqueeze(1), prepared.noise], dim=1)
        return _explain_moved(batch, moved, explain)

    def affected(self, prepared: AttackedEmbeddings) -> Tensor:
        return prepared.success

    def diagnostics(self, prepared: AttackedEmbeddings) -> dict[str, Tensor]:
        return {"attack success": wide(prepared.success)}


@dataclass(frozen=True)
class EmbeddingNoise(Perturbation):
    r"""
    Uniform noise on the embeddings of the attributable tokens.

    Args:
        radius (float): Largest move of a number, relative to the standard deviation of
            the numbers in the embedding table.
            Default: 0.02
        n_samples (int): Draws for each text.
            Default: 5

    Raises:
        ValueError: On numbers out of range.
    """

    name = "embedding_noise"

    radius: float = 0.02
    n_samples: int = 5

    def __post_init__(self) -> None:
        if self.radius <= 0 or self.n_samples < 1:
            raise ValueError(
                f"radius is {self.radius} and n_samples {self.n_samples}; expected a "
                "positive radius and 1 draw or more."
            )

    def prepare(self, batch: Batch) -> Tensor:
        """Moved embeddings, shape (batch, draws, tokens, dim)."""
        texts = batch.texts
        radius = self.radius * _spread(embedding_table(batch.text_model))
        start = batch.text_model.embed(texts.input_ids)
        moved = start.unsqueeze(1).repeat(1, self.n_samples, 1, 1)
        for row, seed in enumerate(texts.seeds):
            generator = torch.Generator().manual_seed(seed)
            chosen = texts.attributable[row]
            shape = (self.n_samples, int(chosen.sum()), start.shape[2])
            noise = (torch.rand(shape, generator=generator) * 2 - 1) * radius
            moved[row][:, chosen] += noise.to(moved)
        return moved

    def explain_again(self, batch: Batch, prepared: Tensor, explain: Explain) -> Tensor:
        return _explain_moved(batch, prepared, explain)
