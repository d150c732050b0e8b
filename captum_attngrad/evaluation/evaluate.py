r"""One batch of texts: explained by each method, and measured."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_attngrad.evaluation.registry import Method
from captum_attngrad.metrics.base import (
    CorpusMetric,
    ErasureMetric,
    Metric,
    Perturbation,
    ReexplainMetric,
)
from captum_attngrad.metrics.cost import Cost, measure_cost
from captum_attngrad.metrics.removal import removal_answers, top_token_masks
from captum_attngrad.text import TextBatch, TextModel

#: Fractions of the tokens at which the removal curves are taken.
CURVE = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)


class Explained(NamedTuple):
    """What a method said about a batch, and what that took for each text."""

    scores: Tensor
    cost: Cost


@dataclass
class Measured:
    """What the metrics said about a method on a batch."""

    values: dict[str, Tensor] = field(default_factory=dict)  # metric to (rows,)
    vectors: dict[str, Tensor] = field(default_factory=dict)  # kind to (rows, dim)
    curve: Tensor | None = None  # (rows, fractions)
    failures: dict[str, str] = field(default_factory=dict)  # metric to its reason


def reason(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.300}" if text else type(error).__name__


def _checked_scores(method: Method, scores: object, texts: TextBatch) -> Tensor:
    expected = tuple(texts.input_ids.shape)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != expected:
        got = (
            f"shape {tuple(scores.shape)}"
            if isinstance(scores, Tensor)
            else type(scores).__name__
        )
        raise ValueError(
            f"The method {method.name!r} returned {got}; expected a tensor of scores "
            f"(batch, tokens), here {expected}."
        )
    scores = scores.detach().masked_fill(~texts.attributable, 0)
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"The method {method.name!r} returned NaN or infinite scores.")
    # Measured as they are kept, so that a continued run has the same numbers.
    return scores.to(torch.float32)


def scores_of(
    text_model: TextModel, method: Method, texts: TextBatch, target: Tensor
) -> Tensor:
    """What a method says about a batch, checked, shape (batch, tokens)."""
    return _checked_scores(method, method.function(text_model, texts, target), texts)


def _checked_masks(metric: ErasureMetric, masks: object, texts: TextBatch) -> Tensor:
    n, length = texts.input_ids.shape
    if (
        isinstance(masks, Tensor)
        and masks.dtype == torch.bool
        and masks.dim() == 3
        and masks.shape[::2] == (n, length)
    ):
        return masks
    raise ValueError(
        f"The metric {metric.name!r} asked for the removal of {_shown(masks)}; "
        f"expected a boolean tensor (batch, variants, tokens), here ({n}, variants, "
        f"{length})."
    )


def _checked_values(metric: Metric, values: object, texts: TextBatch) -> Tensor:
    if not isinstance(values, Tensor) or tuple(values.shape) != (len(texts),):
        raise ValueError(
            f"The metric {metric.name!r} returned {_shown(values)}; expected a tensor "
            f"with one value for each text of the batch, here ({len(texts)},)."
        )
    return values.detach()


def _shown(given: object) -> str:
    if isinstance(given, Tensor):
        dtype = str(given.dtype).removeprefix("torch.")
        return f"a tensor of {dtype} with shape {tuple(given.shape)}"
    return f"{type(given).__name__} {given!r:.40}"


def explain(
    text_model: TextModel,
    method: Method,
    texts: TextBatch,
    target: Tensor,
    memory: bool = False,
) -> Explained:
    """Runs a method on a batch, watching what it takes."""
    found: list[Tensor] = []

    def run() -> None:
        found.append(method.function(text_model, texts, target))

    cost = measure_cost(run, text_model.model, len(texts), memory)
    return Explained(_checked_scores(method, found[0], texts), cost)


def _seed_of_call(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def again(
    text_model: TextModel,
    method: Method,
    texts: TextBatch,
    matters: Tensor | None = None,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The method as perturbations call it: each call draws anew. Texts that do not
    matter are left out; their scores are 0."""
    n_calls = 0
    # Embeddings that were moved are given as ids beyond the vocabulary.
    n_ids = text_model.embedding.weight.shape[0]  # type: ignore[index]
    before = texts.input_ids.tolist()
    rows = list(range(len(texts)))
    if matters is not None:
        rows = matters.nonzero().squeeze(1).tolist()

    def shown(ids: list[int], row: int) -> tuple[str, ...]:
        tokens = list(texts.tokens[row])
        for i in range(len(tokens)):
            if ids[i] != before[row][i] and ids[i] < n_ids:
                (tokens[i],) = text_model.show_tokens([ids[i]])
        return tuple(tokens)

    def explain_variant(input_ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        found = torch.zeros(input_ids.shape, device=input_ids.device)
        if not rows:
            return found
        chosen = input_ids[rows]
        variant = replace(
            texts.rows(rows),
            tokens=tuple(
                shown(ids, row) for row, ids in zip(rows, chosen.tolist(), strict=True)
            ),
            input_ids=chosen,
            attention_mask=mask[rows],
            seeds=tuple(_seed_of_call(texts.seeds[row], n_calls) for row in rows),
        )
        scores = method.function(text_model, variant, target[rows])
        found[rows] = _checked_scores(method, scores, variant)
        return found

    return explain_variant


class BatchMeasures:
    """The metrics on one batch; what methods share is done once.

    Args:
        text_model (TextModel): The classifier.
        texts (TextBatch): The batch.
        target (Tensor): The explained classes, (batch,).
        metrics (tuple of Metric): What is measured.
    """

    def __init__(
        self,
        text_model: TextModel,
        texts: TextBatch,
        target: Tensor,
        metrics: tuple[Metric, ...],
    ) -> None:
        self._text_model = text_model
        self._texts = texts
        self._target = target
        self._metrics = metrics
        self._prepared: dict[Perturbation, Any] = {}

    def measure(
        self, methods: list[Method], scores: dict[str, Tensor]
    ) -> dict[str, Measured]:
        """All metrics of all methods given, by the method's name."""
        found = {method.name: Measured() for method in methods}
        self._erase(found, scores)
        for method in methods:
            self._reexplain(method, scores[method.name], found[method.name])
            self._vectors(scores[method.name], found[method.name])
        return found

    def _erase(self, found: dict[str, Measured], scores: dict[str, Tensor]) -> None:
        """Every distinct variant that any metric of any method asks for, run once."""
        attributable = self._texts.attributable
        erasure = [m for m in self._metrics if isinstance(m, ErasureMetric)]
        asked: list[tuple[str, ErasureMetric | None]] = []
        masks = [torch.zeros_like(attributable).unsqueeze(1)]
        for name, measured in found.items():
            masks.append(top_token_masks(scores[name], attributable, CURVE))
            asked.append((name, None))
            for metric in erasure:
                try:
                    removed = metric.removed(scores[name], attributable)
                    masks.append(_checked_masks(metric, removed, self._texts))
                    asked.append((name, metric))
                except Exception as error:  # a metric of the user's may do anything
                    measured.failures[metric.name] = reason(error)
        answers = removal_answers(
            self._text_model.probabilities,
            self._texts.input_ids,
            torch.cat(masks, dim=1),
            self._target,
            self._text_model.replacement_id,
            additional_forward_args=self._texts.forward_args,
        )
        full, *variants = answers.split([mask.shape[1] for mask in masks])
        full = full.squeeze()
        for (name, asking), answer in zip(asked, variants, strict=True):
            if asking is None:
                found[name].curve = torch.cat([full.p.unsqueeze(1), answer.p], dim=1)
                continue
            try:
                values = asking.value(full, answer, scores[name], attributable)
                found[name].values[asking.name] = _checked_values(
                    asking, values, self._texts
                )
            except Exception as error:
                found[name].failures[asking.name] = reason(error)

    def prepared(self, perturbation: Perturbation) -> Any:
        """The part of a perturbation's work that all methods share."""
        if perturbation not in self._prepared:
            try:
                self._prepared[perturbation] = perturbation.prepare(
                    self._text_model, self._texts, self._target
                )
            except Exception as error:
                self._prepared[perturbation] = error
        result = self._prepared[perturbation]
        if isinstance(result, Exception):
            raise result
        return result

    def diagnostics(self) -> dict[str, Tensor]:
        """What perturbations have to say about the texts, by name."""
        for metric in self._metrics:
            if isinstance(metric, ReexplainMetric):
                # Those that fail say so when they are measured.
                with contextlib.suppress(Exception):
                    self.prepared(metric.perturbation)
        found = {}
        for perturbation, prepared in self._prepared.items():
            if isinstance(prepared, Exception):
                continue
            for name, values in perturbation.diagnostics(prepared).items():
                found[f"{perturbation.name}: {name}"] = values
        return found

    def _reexplain(self, method: Method, scores: Tensor, found: Measured) -> None:
        reexplain = [m for m in self._metrics if isinstance(m, ReexplainMetric)]
        for perturbation in dict.fromkeys(m.perturbation for m in reexplain):
            mine = [m for m in reexplain if m.perturbation == perturbation]
            try:
                prepared = self.prepared(perturbation)
                after = perturbation.explain_again(
                    self._text_model,
                    self._texts,
                    self._target,
                    prepared,
                    again(
                        self._text_model,
                        method,
                        self._texts,
                        perturbation.matters(prepared),
                    ),
                )
                for metric in mine:
                    values = metric.value(
                        scores, self._texts.attributable, prepared, after
                    )
                    found.values[metric.name] = _checked_values(
                        metric, values, self._texts
                    )
            except Exception as error:
                for metric in mine:
                    found.failures[metric.name] = reason(error)

    def _vectors(self, scores: Tensor, found: Measured) -> None:
        for metric in self._metrics:
            if not isinstance(metric, CorpusMetric):
                continue
            if metric.vector in found.vectors:
                continue
            try:
                found.vectors[metric.vector] = self.vectors(metric, scores)
            except Exception as error:
                found.failures[metric.name] = reason(error)

    def vectors(self, metric: CorpusMetric, scores: Tensor) -> Tensor:
        """The vectors of the texts, (batch, dim)."""
        return metric.vectors(
            scores,
            self._texts.attributable,
            self._texts.input_ids,
            self._text_model.embedding.weight.detach(),  # type: ignore[operator]
        )
