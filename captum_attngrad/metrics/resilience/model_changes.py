r"""Changes of the model that leave its function alone, as a perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_attngrad.metrics._parameters import (
    NotApplicableError,
    share_unchanged,
    swapped_parameters,
)
from captum_attngrad.metrics.base import Batch, Explain, Perturbation
from captum_attngrad.metrics.reexplain import explain_changed_models
from captum_attngrad.metrics.resilience.invariances import INVARIANT_CHANGES
from captum_attngrad.text.text_model import TextBatch, TextModel


class ChangedModels(NamedTuple):
    """Changed copies of a model by the name of the change, and the largest difference
    between their logits and the model's, (batch,)."""

    models: dict[str, nn.Module]
    logit_difference: Tensor


@dataclass(frozen=True)
class InvariantModelChanges(Perturbation):
    r"""
    Changes of the model that leave its function alone.

    Every change acts on a copy. The model takes over the copy's parameters while it is
    explained again. Before that the logits of the batch are compared.

    Args:
        changes (Sequence of str, optional): Names in ``INVARIANT_CHANGES``. None for
            all that apply to the model.
            Default: None
        seed (int): Seed of the changes.
            Default: 0
        tolerance (float): Largest difference of a logit.
            Default: 1e-4

    Raises:
        ValueError: On an unknown name; in :meth:`prepare`, if logits differ by more
            than ``tolerance``.
        NotApplicableError: In :meth:`prepare`, if a change given by name, or every
            change, does not apply to the model.
    """

    name = "invariance"
    description = "changes of the model that leave its function alone"
    paper = "Kindermans et al. 2019, The (Un)reliability of Saliency"

    changes: Sequence[str] | None = None
    seed: int = 0
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        for change in self.changes or ():
            if change not in INVARIANT_CHANGES:
                raise ValueError(
                    f"There is no invariant change {change!r}; expected some of: "
                    f"{', '.join(INVARIANT_CHANGES)}."
                )
        if self.changes is not None and len(self.changes) == 0:
            raise ValueError("changes is empty; expected at least one, or None.")
        if self.changes is not None:
            object.__setattr__(self, "changes", tuple(self.changes))
            object.__setattr__(self, "name", "_".join(self.changes))

    def prepare(self, batch: Batch) -> ChangedModels:
        model = batch.text_model.model
        copies: dict[str, nn.Module] = {}
        reasons = []
        for name in self.changes or INVARIANT_CHANGES:
            try:
                changed = INVARIANT_CHANGES[name](model, self.seed, run=batch.run)
            except NotApplicableError as error:
                if self.changes is not None:
                    raise
                reasons.append(str(error))
                continue
            share_unchanged(model, changed)
            copies[name] = changed
        if not copies:
            raise NotApplicableError(
                "No invariant change applies to this model. " + " ".join(reasons)
            )
        differences = logit_differences(
            batch.text_model, list(copies.values()), batch.texts
        )
        for name, difference in zip(copies, differences, strict=True):
            if not float(difference.max()) <= self.tolerance:
                raise ValueError(
                    f"The change {name!r} moves a logit of {type(model).__name__} by "
                    f"{float(difference.max()):.3g}, more than {self.tolerance:g}, so "
                    "it is not invariant for this model and says nothing about its "
                    "explanations. Leave it out of changes."
                )
        return ChangedModels(copies, differences.amax(dim=0))

    def explain_again(
        self, batch: Batch, prepared: ChangedModels, explain: Explain
    ) -> Tensor:
        return explain_changed_models(batch, prepared.models.values(), explain)

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
            with swapped_parameters(text_model.model, other):
                after = text_model.logits(batch.input_ids, *batch.forward_args)
            differences.append((after - before).abs().amax(dim=1))
    return torch.stack(differences)
