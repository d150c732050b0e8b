r"""Do scores stay where they are when the model's function does?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_attngrad.metrics._copies import NotApplicableError
from captum_attngrad.metrics._precision import wide
from captum_attngrad.metrics.agreement import (
    cosine_similarity,
    spearman,
    top_k_overlap,
)
from captum_attngrad.metrics.base import Explain, Perturbation, ReexplainMetric
from captum_attngrad.metrics.borrowed import borrowed_parameters, share_unchanged
from captum_attngrad.metrics.invariances import INVARIANT_CHANGES
from captum_attngrad.metrics.neighbours import (
    answers_of_variants,
    batch_neighbours,
    first_valid,
    random_substitutions,
)
from captum_attngrad.text.text_model import TextBatch, TextModel

#: Measures of agreement by name; each maps (first, second, attributable) to (batch,).
AGREEMENTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "spearman": spearman,
    "cosine": cosine_similarity,
    "top_k": top_k_overlap,
}


class ChangedModels(NamedTuple):
    """Changed copies of a model, to borrow parameters from, by the name of the change;
    and how far their logits are from the model's at most, (batch,)."""

    models: dict[str, nn.Module]
    logit_difference: Tensor


class InvariantModelChanges(Perturbation):
    r"""
    Changes of the model that leave its function alone.

    Every change acts on a copy, whose parameters the model borrows while it is
    explained again. Before that the logits of the batch are compared.

    Args:
        changes (Sequence of str, optional): Names in ``INVARIANT_CHANGES``. None for
            all that the model has the parameters for.
            Default: None
        seed (int): Seed of the changes.
            Default: 0
        tolerance (float): By how much a logit may differ.
            Default: 1e-4

    Raises:
        ValueError: On an unknown name; in :meth:`prepare`, if logits differ by more
            than ``tolerance``.
        NotApplicableError: In :meth:`prepare`, if a change that was asked for by name,
            or every change, does not apply to the model.
    """

    name = "invariance"

    def __init__(
        self,
        changes: Sequence[str] | None = None,
        seed: int = 0,
        tolerance: float = 1e-4,
    ) -> None:
        for change in changes or ():
            if change not in INVARIANT_CHANGES:
                raise ValueError(
                    f"There is no invariant change {change!r}; expected some of: "
                    f"{', '.join(INVARIANT_CHANGES)}."
                )
        if changes is not None and len(changes) == 0:
            raise ValueError("changes is empty; expected at least one, or None.")
        self.changes = None if changes is None else tuple(changes)
        self.seed = seed
        self.tolerance = tolerance
        if self.changes is not None:
            self.name = "_".join(self.changes)

    def prepare(
        self, text_model: TextModel, batch: TextBatch, target: Tensor
    ) -> ChangedModels:
        copies: dict[str, nn.Module] = {}
        reasons = []
        for name in self.changes or INVARIANT_CHANGES:
            try:
                changed = INVARIANT_CHANGES[name](text_model.model, self.seed)
            except NotApplicableError as error:
                if self.changes is not None:
                    raise
                reasons.append(str(error))
                continue
            share_unchanged(text_model.model, changed)
            copies[name] = changed
        if not copies:
            raise NotApplicableError(
                "No invariant change applies to this model. " + " ".join(reasons)
            )
        differences = logit_differences(text_model, list(copies.values()), batch)
        for name, difference in zip(copies, differences, strict=True):
            if not float(difference.max()) <= self.tolerance:
                raise ValueError(
                    f"The change {name!r} moves a logit of "
                    f"{type(text_model.model).__name__} by "
                    f"{float(difference.max()):.3g}, more than {self.tolerance:g}: for "
                    "this model it is not invariant, so what explanations do under it "
                    "says nothing. Leave it out of changes."
                )
        return ChangedModels(copies, differences.amax(dim=0))

    def explain_again(
        self,
        text_model: TextModel,
        batch: TextBatch,
        target: Tensor,
        prepared: ChangedModels,
        explain: Explain,
    ) -> Tensor:
        again = []
        for changed in prepared.models.values():
            with borrowed_parameters(text_model.model, changed):
                again.append(explain(batch.input_ids, batch.attention_mask, target))
        return torch.stack(again, dim=1)

    def diagnostics(self, prepared: ChangedModels) -> dict[str, Tensor]:
        return {"largest logit difference": prepared.logit_difference}


def logit_differences(
    text_model: TextModel, changed: Sequence[nn.Module], batch: TextBatch
) -> Tensor:
    r"""
    Largest difference between the logits of a model and of changed copies.

    Args:
        text_model (TextModel): The model.
        changed (Sequence of nn.Module): Copies of ``text_model.model`` with other
            parameters.
        batch (TextBatch): The texts.

    Returns:
        *Tensor*: Shape (copies, batch).
    """
    differences = []
    with torch.no_grad():
        before = text_model.logits(batch.input_ids, *batch.forward_args)
        for other in changed:
            with borrowed_parameters(text_model.model, other):
                after = text_model.logits(batch.input_ids, *batch.forward_args)
            differences.append((after - before).abs().amax(dim=1))
    return torch.stack(differences)


class SubstitutedTexts(NamedTuple):
    """Variants of texts (batch, variants, tokens), and which of them count."""

    input_ids: Tensor
    valid: Tensor


class NeighbourSubstitution(Perturbation):
    r"""
    Random tokens become neighbours in the embedding space, and the answer stays.

    Variants are drawn, run, and kept if the explained class keeps its probability to
    ``epsilon`` and, where it was the predicted one, stays that.

    Args:
        fraction (float): How many of the attributable tokens are replaced, rounded up,
            in (0, 1].
            Default: 0.1
        epsilon (float): By how much the probability may move.
            Default: 0.02
        n_variants (int): Variants of each text that are kept.
            Default: 3
        n_draws (int): Variants that are tried.
            Default: 8
        n_neighbours (int): How many neighbours a word has.
            Default: 10

    Raises:
        ValueError: On numbers out of range.
    """

    name = "neighbours"
    needs_one_class = True

    def __init__(
        self,
        fraction: float = 0.1,
        epsilon: float = 0.02,
        n_variants: int = 3,
        n_draws: int = 8,
        n_neighbours: int = 10,
    ) -> None:
        if not 0 < fraction <= 1 or epsilon < 0:
            raise ValueError(
                f"fraction is {fraction} and epsilon {epsilon}; expected a fraction in "
                "(0, 1] and an epsilon of 0 or more."
            )
        if not 1 <= n_variants <= n_draws:
            raise ValueError(
                f"n_variants is {n_variants} and n_draws {n_draws}; expected at least "
                "1 variant and no fewer draws."
            )
        self.fraction = fraction
        self.epsilon = epsilon
        self.n_variants = n_variants
        self.n_draws = n_draws
        self.n_neighbours = n_neighbours

    def prepare(
        self, text_model: TextModel, batch: TextBatch, target: Tensor
    ) -> SubstitutedTexts:
        ids = batch.input_ids
        counts = batch.attributable.sum(dim=1).tolist()
        tried = random_substitutions(
            ids,
            batch.attributable,
            batch_neighbours(text_model, ids, self.n_neighbours),
            torch.tensor([math.ceil(self.fraction * n - 1e-9) for n in counts]),
            self.n_draws,
            batch.seeds,
        )
        answers = answers_of_variants(
            text_model,
            torch.cat([ids.unsqueeze(1), tried], dim=1),
            *batch.forward_args,
        )
        p = answers.gather(2, target.reshape(-1, 1, 1).expand(-1, answers.shape[1], 1))
        close = (p[:, 1:, 0] - p[:, :1, 0]).abs() <= self.epsilon
        predicted = answers.argmax(dim=2)
        same_class = predicted[:, 1:] == predicted[:, :1]
        order, valid = first_valid(close & same_class, self.n_variants)
        kept = tried.gather(1, order.unsqueeze(2).expand(-1, -1, ids.shape[1]))
        return SubstitutedTexts(kept, valid)

    def explain_again(
        self,
        text_model: TextModel,
        batch: TextBatch,
        target: Tensor,
        prepared: SubstitutedTexts,
        explain: Explain,
    ) -> Tensor:
        again = [
            explain(ids, batch.attention_mask, target)
            for ids in prepared.input_ids.unbind(dim=1)
        ]
        return torch.stack(again, dim=1)

    def matters(self, prepared: SubstitutedTexts) -> Tensor:
        return prepared.valid.any(dim=1)

    def diagnostics(self, prepared: SubstitutedTexts) -> dict[str, Tensor]:
        return {"texts with a neighbour": wide(prepared.valid.any(dim=1))}


def mean_agreement(
    before: Tensor,
    again: Tensor,
    attributable: Tensor,
    valid: Tensor,
    measure: str = "spearman",
) -> Tensor:
    r"""
    Mean agreement of the scores before with those after each valid variant.

    Args:
        before (Tensor): Scores, shape (batch, tokens).
        again (Tensor): Scores, shape (batch, variants, tokens).
        attributable (Tensor): Boolean, shape (batch, tokens).
        valid (Tensor): Boolean, shape (batch, variants): which variants count.
        measure (str): "spearman", "cosine" or "top_k" (the top 20%).
            Default: "spearman"

    Returns:
        *Tensor*: Shape (batch,); NaN where no variant is valid, or the measure is
        undefined for all of them.
    """
    function = AGREEMENTS[measure]
    each = torch.stack(
        [function(before, scores, attributable) for scores in again.unbind(dim=1)],
        dim=1,
    )
    return each.masked_fill(~valid, torch.nan).nanmean(dim=1)


class Resilience(ReexplainMetric):
    r"""
    Agreement of the scores before and after a perturbation that leaves the model's
    answer alone.

    Args:
        perturbation (Perturbation, optional): :class:`InvariantModelChanges` or
            :class:`NeighbourSubstitution`. None for all invariant changes of the model
            that apply.
            Default: None
        measure (str): "spearman", "cosine" or "top_k" (overlap of the top 20%).
            Default: "spearman"

    Raises:
        ValueError: On another ``measure``.

    Examples::

        >>> explain = lambda ids, mask, target: method.attribute(
        ...     ids, target=target, additional_forward_args=(mask,)
        ... )
        >>> Resilience()(text_model, batch, target, explain)  # (batch,)
    """

    property = "resilience"
    higher_is_better = True
    best_value = 1.0
    undefined = "no variant with the same answer, or all scores equal"

    def __init__(
        self,
        perturbation: InvariantModelChanges | NeighbourSubstitution | None = None,
        measure: str = "spearman",
    ) -> None:
        if measure not in AGREEMENTS:
            raise ValueError(
                f"measure is {measure!r}; expected one of: {', '.join(AGREEMENTS)}."
            )
        super().__init__(perturbation or InvariantModelChanges())
        self.measure = measure
        self.name = f"{self.perturbation.name}_{measure}"
        self.value_range = (0.0 if measure == "top_k" else -1.0, 1.0)
        if isinstance(self.perturbation, NeighbourSubstitution):
            what = "neighbouring words that leave the answer alone"
            self.paper = "Chakraborty et al., Paying Attention to Attention"
        else:
            what = "changes of the model that leave its function alone"
            self.paper = "Kindermans et al. 2019, The (Un)reliability of Saliency"
        self.description = f"{measure} agreement of the scores before and after {what}"

    def value(
        self,
        attributions: Tensor,
        attributable: Tensor,
        prepared: ChangedModels | SubstitutedTexts,
        again: Tensor,
    ) -> Tensor:
        if isinstance(prepared, SubstitutedTexts):
            valid = prepared.valid
        else:
            valid = attributable.new_ones(again.shape[:2])
        return mean_agreement(attributions, again, attributable, valid, self.measure)
