r"""The metrics of one batch, for all methods."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.evaluation.explaining import reason
from captum_attngrad.evaluation.results import CURVE
from captum_attngrad.metrics import Batch, Explain, ExplainedBatch, Metric
from captum_attngrad.metrics.functional import masked_answers, top_token_masks


@dataclass
class Measured:
    """The metrics of one method on a batch."""

    values: dict[str, Tensor] = field(default_factory=dict)  # by the metric's key
    curve: Tensor | None = None  # (texts, 1 + fractions)
    failures: dict[str, str] = field(default_factory=dict)  # metric to reason


def _shown(given: Any) -> str:
    if isinstance(given, Tensor):
        dtype = str(given.dtype).removeprefix("torch.")
        return f"a tensor of {dtype} with shape {tuple(given.shape)}"
    return f"{type(given).__name__} {given!r:.40}"


def _checked_masks(metric: Metric, masks: Any, attributable: Tensor) -> Tensor:
    n, length = attributable.shape
    if (
        isinstance(masks, Tensor)
        and masks.dtype == torch.bool
        and masks.dim() == 3
        and masks.shape[::2] == (n, length)
    ):
        return masks
    raise ValueError(
        f"The metric {metric.name!r} asked to mask with {_shown(masks)}; "
        f"expected a boolean tensor (batch, variants, tokens), here ({n}, variants, "
        f"{length})."
    )


def checked_values(metric: Metric, values: Any, n: int, vectors: bool) -> Tensor:
    """The metric's values or vectors of ``n`` texts, without autograd."""
    if (
        not isinstance(values, Tensor)
        or values.shape[:1] != (n,)
        or values.dim() != 1 + vectors
    ):
        one, shape = ("vector", "dim") if vectors else ("value", "")
        raise ValueError(
            f"The metric {metric.name!r} returned {_shown(values)}; expected a tensor "
            f"with one {one} for each text, here ({n},{shape and f' {shape}'})."
        )
    return values.detach()


def measure(
    metrics: Sequence[Metric], explained: Mapping[str, ExplainedBatch]
) -> dict[str, Measured]:
    r"""
    All metrics of a batch that several methods have explained.

    The masked texts that any metric needs for any method are collected, and the model
    is run once on each distinct one.

    Args:
        metrics (Sequence of Metric): The metrics.
        explained (Mapping): The explanations of one batch, by the method's name.

    Returns:
        *dict*: What was measured, by the method's name.
    """
    found = {name: Measured() for name in explained}
    if not explained:
        return found
    batch = next(iter(explained.values())).batch
    asked: list[tuple[str, str]] = []
    masks = [torch.zeros_like(batch.texts.attributable).unsqueeze(1)]
    for name, explanation in explained.items():
        scores, attributable = explanation.scores, explanation.attributable
        masks.append(top_token_masks(scores, attributable, CURVE))
        asked.append((name, ""))
        for metric in metrics:
            try:
                wanted = metric.masks(scores, attributable)
                if wanted is not None:
                    masks.append(_checked_masks(metric, wanted, attributable))
                    asked.append((name, metric.name))
            except Exception as error:  # a user's metric may do anything
                found[name].failures[metric.name] = reason(error)
    full, *masked = masked_answers(
        batch.text_model.probabilities,
        batch.texts.input_ids,
        torch.cat(masks, dim=1),
        batch.target,
        batch.text_model.replacement_id,
        additional_forward_args=batch.texts.forward_args,
    ).split([mask.shape[1] for mask in masks])
    full = full.squeeze()
    answers = dict(zip(asked, masked, strict=True))
    for name, explanation in explained.items():
        curve = answers[name, ""].p
        found[name].curve = torch.cat([full.p.unsqueeze(1), curve], dim=1)
        for metric in metrics:
            _measure_one(
                metric,
                replace(
                    explanation, full=full, masked=answers.get((name, metric.name))
                ),
                found[name],
            )
    return found


def _measure_one(metric: Metric, explained: ExplainedBatch, found: Measured) -> None:
    key = metric.key()
    if key in found.values or metric.name in found.failures:
        return
    try:
        values = metric.measure_batch(explained)
        n_texts = len(explained.batch.texts)
        found.values[key] = checked_values(
            metric, values, n_texts, metric.measures_vectors
        )
    except Exception as error:
        found.failures[metric.name] = reason(error)


def uniform_values(batch: Batch, metrics: Sequence[Metric]) -> dict[str, Tensor]:
    """What the metrics that compare with uniform scores measure for those, by key."""

    def explainer(affected: Tensor | None) -> Explain:
        raise ValueError("Uniform scores cannot be computed again.")

    ones = batch.texts.attributable.to(torch.float32)
    explained = ExplainedBatch(batch, ones, explainer)
    found = Measured()
    for metric in metrics:
        if metric.needs_uniform:
            _measure_one(metric, explained, found)
    return found.values


def diagnostics(batch: Batch, metrics: Sequence[Metric]) -> dict[str, Tensor]:
    """The metrics' diagnostics of the batch, by name."""
    found: dict[str, Tensor] = {}
    for metric in metrics:
        # A failure is reported where the metric is measured.
        with contextlib.suppress(Exception):
            found.update(metric.diagnostics(batch))
    return found
