r"""A batch of texts, explained by one method."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_attngrad.evaluation.registry import Method
from captum_attngrad.metrics import Explain
from captum_attngrad.metrics.functional import Cost, measure_cost
from captum_attngrad.text import TextBatch, TextModel


class Explained(NamedTuple):
    """A method's scores for a batch, and their cost for each text."""

    scores: Tensor
    cost: Cost


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
    # Measured as they are stored, so that a resumed run has the same numbers.
    return scores.to(torch.float32)


def explain(
    text_model: TextModel, method: Method, texts: TextBatch, target: Tensor
) -> Tensor:
    r"""
    The scores of a method for a batch of texts.

    Args:
        text_model (TextModel): The classifier, in evaluation mode.
        method (Method): The method.
        texts (TextBatch): The texts.
        target (Tensor): The explained classes, (batch,).

    Returns:
        *Tensor*: Shape (batch, tokens), float32, 0 where not attributable.

    Raises:
        ValueError: If the method returns anything but finite scores of that shape.
    """
    return _checked_scores(method, method.function(text_model, texts, target), texts)


def explain_with_cost(
    text_model: TextModel,
    method: Method,
    texts: TextBatch,
    target: Tensor,
    memory: bool = False,
) -> Explained:
    """As :func:`explain`, with the cost; peak memory only with ``memory``."""
    found: list[Tensor] = []

    def run() -> None:
        found.append(method.function(text_model, texts, target))

    cost = measure_cost(run, text_model.model, len(texts), memory)
    return Explained(_checked_scores(method, found[0], texts), cost)


def _seed_of_call(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def explainer(
    text_model: TextModel, method: Method, texts: TextBatch
) -> Callable[[Tensor | None], Explain]:
    """The method as perturbations call it: given the texts that are affected (boolean
    (batch,) or None for all), a function that explains variants of the batch. Each
    call draws new random numbers. Texts that are not affected get the score 0."""
    return lambda affected: _Explainer(text_model, method, texts, affected)


class _Explainer:
    def __init__(
        self,
        text_model: TextModel,
        method: Method,
        texts: TextBatch,
        affected: Tensor | None,
    ) -> None:
        self._text_model = text_model
        self._method = method
        self._texts = texts
        self._rows = list(range(len(texts)))
        if affected is not None:
            self._rows = affected.nonzero().squeeze(1).tolist()
        # Moved embeddings are passed as ids beyond the vocabulary.
        self._n_ids = text_model.embedding.weight.shape[0]  # type: ignore[index]
        self._original_ids = texts.input_ids.tolist()
        self._n_calls = 0

    def _tokens(self, ids: list[int], row: int) -> tuple[str, ...]:
        tokens = list(self._texts.tokens[row])
        for i in range(len(tokens)):
            if ids[i] != self._original_ids[row][i] and ids[i] < self._n_ids:
                (tokens[i],) = self._text_model.show_tokens([ids[i]])
        return tuple(tokens)

    def __call__(self, input_ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        self._n_calls += 1
        found = torch.zeros(input_ids.shape, device=input_ids.device)
        rows = self._rows
        if not rows:
            return found
        chosen = input_ids[rows]
        pairs = zip(rows, chosen.tolist(), strict=True)
        variant = replace(
            self._texts.rows(rows),
            tokens=tuple(self._tokens(ids, row) for row, ids in pairs),
            input_ids=chosen,
            attention_mask=mask[rows],
            seeds=tuple(
                _seed_of_call(self._texts.seeds[row], self._n_calls) for row in rows
            ),
        )
        found[rows] = explain(self._text_model, self._method, variant, target[rows])
        return found
