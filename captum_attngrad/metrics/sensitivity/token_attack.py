r"""Substituting words by their neighbors until the model predicts another class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_attngrad.metrics._neighbors import (
    answers_of_variants,
    batch_neighbors,
    embedding_table,
    first_valid,
    random_substitutions,
)
from captum_attngrad.metrics._parameters import differentiable
from captum_attngrad.metrics.base import Batch, Explain, Perturbation
from captum_attngrad.metrics.functional._precision import wide
from captum_attngrad.metrics.functional.masking import answers_about
from captum_attngrad.text.text_model import TextBatch, TextModel


@dataclass(frozen=True)
class AttackedTexts:
    r"""
    The result of an attack on the tokens of a batch.

    Args:
        input_ids (Tensor): The texts after the attack, shape (batch, tokens).
        substituted (Tensor): Boolean, same shape: the substituted tokens.
        success (Tensor): Boolean, shape (batch,): whether the class changed.
        new_class (Tensor): The class predicted after the attack, shape (batch,).
        noise_ids (Tensor): The texts with as many random substitutions, shape (batch,
            draws, tokens).
        noise_valid (Tensor): Boolean, shape (batch, draws): draws that keep the class.
    """

    input_ids: Tensor
    substituted: Tensor
    success: Tensor
    new_class: Tensor
    noise_ids: Tensor
    noise_valid: Tensor


def _margin(logits: Tensor, target: Tensor) -> Tensor:
    """Logit of the target minus the largest other."""
    return answers_about(logits, target).margin


def _estimated_change(
    text_model: TextModel,
    ids: Tensor,
    forward_args: tuple[Tensor, ...],
    target: Tensor,
    neighbors: Tensor,
) -> Tensor:
    """First-order change of the margin for each substitution, (batch, tokens, k)."""
    embedded = text_model.embed(ids).requires_grad_()
    with torch.enable_grad(), differentiable(text_model.model):
        logits = text_model.logits_from_embeddings(embedded, *forward_args)
        (gradient,) = torch.autograd.grad(_margin(logits, target).sum(), embedded)
    table = embedding_table(text_model)
    own = (table[ids] * gradient).sum(dim=2)
    # One neighbor at a time: all of them would take k times the embeddings' memory.
    new = [(table[some] * gradient).sum(dim=2) for some in neighbors.unbind(dim=2)]
    return torch.stack(new, dim=2) - own.unsqueeze(2)


def attack_tokens(
    text_model: TextModel,
    batch: TextBatch,
    target: Tensor,
    max_fraction: float = 0.2,
    n_neighbors: int = 10,
    n_checked: int = 4,
) -> Tensor:
    r"""
    Greedy substitution of words by neighbors in the embedding space, led by the
    gradient (in the manner of HotFlip, Ebrahimi et al. 2018,
    https://aclanthology.org/P18-2006).

    In each round the change of the margin (logit of the target minus the largest other)
    is estimated to first order for each substitution; the ``n_checked`` most promising
    ones are run, and the best is kept. A text is done when its class has changed, when
    its budget is spent, or when none of the checked substitutions lowers the margin. No
    position is substituted twice.

    Args:
        text_model (TextModel): The model, in evaluation mode.
        batch (TextBatch): The texts.
        target (Tensor): The classes to move the texts away from, shape (batch,).
        max_fraction (float): Budget: how many of the attributable tokens may be
            substituted, rounded up.
            Default: 0.2
        n_neighbors (int): Neighbors of each word.
            Default: 10
        n_checked (int): Substitutions that are run in each round.
            Default: 4

    Returns:
        *Tensor*: The texts after the attack, whether or not it succeeded: ids of shape
        (batch, tokens).

    Raises:
        TypeError: If the embedding of the text model is not an ``nn.Embedding``.
    """
    ids, args = batch.input_ids.clone(), batch.forward_args
    neighbors = batch_neighbors(text_model, ids, n_neighbors)
    counts = batch.attributable.sum(dim=1).tolist()
    budget = [math.ceil(max_fraction * n - 1e-9) for n in counts]
    with torch.no_grad():
        margin = _margin(text_model.logits(ids, *args), target)
    active = margin >= 0
    free = batch.attributable.clone()
    for step in range(max(budget)):
        active &= torch.tensor([step < n for n in budget], device=ids.device)
        rows = active.nonzero().squeeze(1)
        if len(rows) == 0:
            break
        of_rows = tuple(arg[rows] for arg in args)
        change = _estimated_change(
            text_model, ids[rows], of_rows, target[rows], neighbors[rows]
        )
        change = change.masked_fill(~free[rows].unsqueeze(2), torch.inf).flatten(1)
        n_tried = min(n_checked, change.shape[1])
        estimate, cheapest = change.topk(n_tried, dim=1, largest=False)
        position = cheapest // n_neighbors
        word = neighbors[rows].flatten(1).gather(1, cheapest)
        tried = ids[rows].unsqueeze(1).repeat(1, n_tried, 1)
        tried.scatter_(2, position.unsqueeze(2), word.unsqueeze(2))
        with torch.no_grad():
            margins = torch.stack(
                [
                    _margin(text_model.logits(variant, *of_rows), target[rows])
                    for variant in tried.unbind(dim=1)
                ],
                dim=1,
            ).masked_fill(estimate == torch.inf, torch.inf)
        best, chosen = margins.min(dim=1)
        better = best < margin[rows]
        taken = rows[better]
        chosen = chosen[better]
        ids[taken] = tried[better, chosen]
        margin[taken] = best[better]
        free[taken, position[better, chosen]] = False
        active[rows[~better]] = False
        active &= margin >= 0
    return ids


@dataclass(frozen=True)
class TokenAttack(Perturbation):
    r"""
    ``attack_tokens``, and for comparison random substitutions of the same size:
    equally many random tokens, replaced by random neighbors, that do not change the
    class.

    Args:
        max_fraction (float): Budget as a fraction of the attributable tokens, rounded
            up, in (0, 1].
            Default: 0.2
        n_neighbors (int): Neighbors of each word.
            Default: 10
        n_noise (int): Random variants of each text.
            Default: 3

    Raises:
        ValueError: On numbers out of range.
    """

    name = "token_attack"
    paper = "Ebrahimi et al. 2018, HotFlip"
    needs_one_class = True

    max_fraction: float = 0.2
    n_neighbors: int = 10
    n_noise: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.max_fraction <= 1:
            raise ValueError(
                f"max_fraction is {self.max_fraction}; expected a fraction in (0, 1]."
            )
        if self.n_noise < 1:
            raise ValueError(f"n_noise is {self.n_noise}; expected 1 or more.")

    def prepare(self, batch: Batch) -> AttackedTexts:
        texts = batch.texts
        ids = texts.input_ids
        attacked = attack_tokens(
            batch.text_model, texts, batch.target, self.max_fraction, self.n_neighbors
        )
        substituted = attacked != ids
        noise = random_substitutions(
            ids,
            texts.attributable,
            batch_neighbors(batch.text_model, ids, self.n_neighbors),
            substituted.sum(dim=1),
            4 * self.n_noise,  # some of them change the class
            texts.seeds,
        )
        variants = torch.cat([ids.unsqueeze(1), attacked.unsqueeze(1), noise], dim=1)
        answers = answers_of_variants(batch.text_model, variants, *texts.forward_args)
        predicted = answers.argmax(dim=2)
        right = predicted == batch.target.unsqueeze(1)
        order, valid = first_valid(right[:, 2:] & right[:, :1], self.n_noise)
        return AttackedTexts(
            input_ids=attacked,
            substituted=substituted,
            success=right[:, 0] & ~right[:, 1],
            new_class=predicted[:, 1],
            noise_ids=noise.gather(1, order.unsqueeze(2).expand(-1, -1, ids.shape[1])),
            noise_valid=valid,
        )

    def explain_again(
        self, batch: Batch, prepared: AttackedTexts, explain: Explain
    ) -> Tensor:
        """Attacked text for the target, attacked text for the new class, then the
        random variants for the target."""
        mask, target = batch.texts.attention_mask, batch.target
        again = [
            explain(prepared.input_ids, mask, target),
            explain(prepared.input_ids, mask, prepared.new_class),
            *(explain(ids, mask, target) for ids in prepared.noise_ids.unbind(1)),
        ]
        return torch.stack(again, dim=1)

    def affected(self, prepared: AttackedTexts) -> Tensor:
        return prepared.success

    def diagnostics(self, prepared: AttackedTexts) -> dict[str, Tensor]:
        return {
            "attack success": wide(prepared.success),
            "tokens substituted": wide(prepared.substituted.sum(dim=1)),
        }
