"""The methods of the search: functions from a batch to scores (batch, tokens)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from captum.attr import ShapleyValueSampling
from torch import Tensor

import captum_attngrad
from benchmarks.search.passes import (
    Reference,
    Score,
    log_odds,
    probability,
    reference_of,
    run_point,
)
from benchmarks.search.slopes import between
from benchmarks.search.subjects import Batch, Subject
from captum_attngrad import AttentionDeepLift
from captum_attngrad.metrics.functional import top_token_masks

Run = Callable[[Subject, Batch], Tensor]
FULL = [(1.0, 1.0)]


class Method(NamedTuple):
    name: str
    passes: str
    run: Run


def gauss_legendre(n: int) -> list[tuple[float, float]]:
    """Points in (0, 1) and their weights."""
    points, weights = np.polynomial.legendre.leggauss(n)
    return [
        (float(p + 1) / 2, float(w) / 2) for p, w in zip(points, weights, strict=True)
    ]


def ends(subject: Subject, batch: Batch) -> tuple[Tensor, Tensor]:
    """Word vectors of the text, and of the text with every token replaced."""
    masked = batch.ids.masked_fill(batch.attributable, subject.replacement)
    return subject.vectors(batch.ids), subject.vectors(masked)


def random_scores(_: Subject, batch: Batch) -> Tensor:
    generator = torch.Generator().manual_seed(batch.rows[0])
    return torch.rand(batch.ids.shape, generator=generator) * 2 - 1


def last_attention(subject: Subject, batch: Batch) -> Tensor:
    """Raw attention of the last call, first query row, summed over heads: with an
    output gradient of one unit in one channel of values that are all 1 and 0."""
    rows: list[Tensor] = []

    def change(_: int, value: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            channel = torch.zeros_like(value).requires_grad_()
            first = attend(channel)[:, :, 0, 0].sum()
            (gradient,) = torch.autograd.grad(first, channel)
        rows.append(gradient[..., 0].sum(dim=1))
        return attend(value)

    with torch.no_grad():
        subject.run(subject.vectors(batch.ids), batch.mask, change)
    return rows[-1]


def attention_gradient(subject: Subject, batch: Batch) -> Tensor:
    point = run_point(subject, batch, subject.vectors(batch.ids))
    return sum_calls(point.raw)


def sum_calls(calls: list[Tensor]) -> Tensor:
    return torch.stack([call.sum(dim=1) for call in calls]).sum(dim=0)


def integrated_gradients(
    points: list[tuple[float, float]], score: Score = probability
) -> Run:
    """Integrated Gradients from the masked text, at the given points and weights."""

    def run(subject: Subject, batch: Batch) -> Tensor:
        text, masked = ends(subject, batch)
        total = torch.zeros_like(text)
        for t, weight in points:
            point = run_point(subject, batch, masked + t * (text - masked), 1.0, score)
            total = total + weight * point.vectors
        return (total * (text - masked)).sum(dim=-1)

    return run


def scaled_attention(
    points: list[tuple[float, float]], score: Score = probability
) -> Run:
    """Integrated attention gradient, all calls scaled together."""

    def run(subject: Subject, batch: Batch) -> Tensor:
        text = subject.vectors(batch.ids)
        total = torch.zeros(batch.ids.shape)
        for alpha, weight in points:
            point = run_point(subject, batch, text, alpha, score)
            total = total + weight * sum_calls(point.attention)
        return total

    return run


def from_masked_attention(
    points: list[tuple[float, float]], score: Score = probability
) -> Run:
    """The attention outputs go from those of the masked text to those of the text."""

    def run(subject: Subject, batch: Batch) -> Tensor:
        text, masked = ends(subject, batch)
        reference = reference_of(subject, batch, masked)
        total = torch.zeros(batch.ids.shape)
        for alpha, weight in points:
            point = run_point(subject, batch, text, alpha, score, reference)
            total = total + weight * (
                sum_calls(point.attention) - sum_calls(point.reference)
            )
        return total

    return run


def joint_path(
    points: list[tuple[float, float]], score: Score, masked_too: bool
) -> Run:
    """Word vectors go from mask to text while attention goes from none (or from that
    of the masked text) to its own; both shares of the score are added."""

    def run(subject: Subject, batch: Batch) -> Tensor:
        text, masked = ends(subject, batch)
        reference = reference_of(subject, batch, masked) if masked_too else None
        total = torch.zeros(batch.ids.shape)
        for t, weight in points:
            total = total + weight * at_level(
                subject, batch, (text, masked), torch.tensor(t), t, score, reference
            )
        return total

    return run


def at_level(
    subject: Subject,
    batch: Batch,
    text_and_masked: tuple[Tensor, Tensor],
    level: Tensor,
    alpha: float,
    score: Score,
    reference: Reference | None,
    attention: bool = True,
) -> Tensor:
    """Both shares at word vectors ``masked + level * (text - masked)``; ``level`` is
    one number or one for each token, (batch, tokens, 1)."""
    text, masked = text_and_masked
    vectors = masked + level * (text - masked)
    point = run_point(subject, batch, vectors, alpha, score, reference)
    total = (point.vectors * (text - masked)).sum(dim=-1)
    if attention:
        total = total + sum_calls(point.attention)
        if reference is not None:
            total = total - sum_calls(point.reference)
    return total


class Levels(NamedTuple):
    """Where :func:`with_and_without` looks."""

    first: float = 1.0  # the level of all tokens in the first pass
    high: float = 1.0  # of the tokens that are there in the second and third
    low: float = 0.0  # of those that are not
    alphas: tuple[float, float, float] = (0.8, 0.7, 0.5)
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    without: float = 0.2  # share of tokens that goes in the second pass
    only: float = 0.2  # share of tokens that stays in the third
    attention: bool = True


def with_and_without(levels: Levels, score: Score = log_odds) -> Run:
    """Three passes: the text, the text without the tokens that the first pass scored
    highest, and those tokens alone. Their scores are added."""

    def run(subject: Subject, batch: Batch) -> Tensor:
        both = ends(subject, batch)
        reference = None
        if levels.attention:
            reference = reference_of(subject, batch, both[1])

        def share(level: Tensor, number: int) -> Tensor:
            return levels.weights[number] * at_level(
                subject,
                batch,
                both,
                level,
                levels.alphas[number],
                score,
                reference,
                levels.attention,
            )

        total = share(torch.tensor(levels.first), 0)
        top, kept = top_token_masks(
            total, batch.attributable, [levels.without, levels.only]
        ).unbind(dim=1)
        spread = levels.high - levels.low
        without = (levels.high - spread * top.float()).unsqueeze(-1)
        only = (levels.low + spread * kept.float()).unsqueeze(-1)
        return total + share(without, 1) + share(only, 2)

    return run


def shuffled_levels(levels: tuple[float, ...], score: Score, seed: int = 0) -> Run:
    """Integrated Gradients off the diagonal: each token visits all levels, in an order
    of its own."""

    def run(subject: Subject, batch: Batch) -> Tensor:
        both = ends(subject, batch)
        generator = torch.Generator().manual_seed(seed + batch.rows[0])
        shape = (*batch.ids.shape, len(levels))
        order = torch.rand(shape, generator=generator).argsort(dim=-1)
        total = torch.zeros(batch.ids.shape)
        for turn in range(len(levels)):
            level = torch.tensor(levels)[order[..., turn]].unsqueeze(-1)
            found = at_level(subject, batch, both, level, 1.0, score, None, False)
            total = total + found / len(levels)
        return total

    return run


def attention_deep_lift(joint_steps: int) -> Run:
    """The library's own, of log-odds, from the masked text."""

    def run(subject: Subject, batch: Batch) -> Tensor:
        method = AttentionDeepLift(
            lambda ids, mask: captum_attngrad.log_odds(subject.logits(ids, mask)),
            subject.model,
            embedding=subject.embedding(),
        )
        masked = batch.ids.masked_fill(batch.attributable, subject.replacement)
        scores: Tensor = method.attribute(
            batch.ids, masked, batch.target, batch.mask, joint_steps=joint_steps
        )
        return scores

    return run


def slopes(attention: str) -> Run:
    def run(subject: Subject, batch: Batch) -> Tensor:
        return between(subject, batch, *ends(subject, batch), attention)

    return run


def slopes_of_three_pairs(
    pairs: Callable[[Subject, Batch, tuple[Tensor, Tensor]], Tensor],
) -> Run:
    def run(subject: Subject, batch: Batch) -> Tensor:
        return pairs(subject, batch, ends(subject, batch))

    return run


def slopes_and_attention_from_masked(points: list[tuple[float, float]]) -> Run:
    """The mean of the slopes and of attention from the masked text's to its own."""
    from_masked = from_masked_attention(points, log_odds)

    def run(subject: Subject, batch: Batch) -> Tensor:
        held = between(subject, batch, *ends(subject, batch))
        return (held + from_masked(subject, batch)) / 2

    return run


def shapley_value_sampling(samples: int) -> Run:
    """Captum's, text by text, over the attributable tokens."""

    def run(subject: Subject, batch: Batch) -> Tensor:
        scores = torch.zeros(batch.ids.shape)
        for row in range(len(batch.rows)):
            scores[row] = _shapley_of_one(subject, batch, row, samples)
        return scores

    return run


def _shapley_of_one(subject: Subject, batch: Batch, row: int, samples: int) -> Tensor:
    length = int(batch.mask[row].sum())
    places = batch.attributable[row].nonzero().squeeze(1)
    ids, mask = batch.ids[row : row + 1, :length], batch.mask[row : row + 1, :length]

    def forward(features: Tensor) -> Tensor:
        variants = ids.repeat(len(features), 1)
        variants[:, places] = features
        return subject.probabilities(variants, mask.expand(len(features), -1))

    scores = torch.zeros(batch.ids.shape[1])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(batch.rows[row])  # Captum draws from the global generator
        found: Any = ShapleyValueSampling(forward).attribute(
            ids[:, places],
            baselines=subject.replacement,
            target=int(batch.target[row]),
            n_samples=samples,
            perturbations_per_eval=32,
        )
    scores[places] = found[0].float()
    return scores
