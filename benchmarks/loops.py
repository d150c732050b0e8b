"""The peer of the comparison harness: plain loops over Captum.

One text, one method, one metric and one variant of the text at a time, as a user of
Captum would write it, and as explanation benchmarks do that explain text by text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import (
    FeatureAblation,
    InputXGradient,
    LayerIntegratedGradients,
    Lime,
    Occlusion,
    Saliency,
)
from torch import Tensor

from captum_attngrad.metrics.functional import DEFAULT_BINS, kendall_tau_b, random_masks
from captum_attngrad.text import TextBatch, TextModel

METHODS = (
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "lime",
    "occlusion",
    "feature_ablation",
)
METRICS = (
    "comprehensiveness",
    "sufficiency",
    "positive_words",
    "inhibitor_words",
    "decision_flip",
    "polarity_violation",
    "leave_one_out_agreement",
    "infidelity",
)
LIME_SAMPLES = 500


def _similarity(_: Tensor, __: Tensor, kept: Tensor, **options: object) -> Tensor:
    cosine = torch.cosine_similarity(kept.double(), torch.ones_like(kept).double())
    return torch.exp(-((1 - cosine) ** 2) / (2 * 0.25**2))


class Loops:
    """One text, with the class that is explained.

    Args:
        text_model (TextModel): The model.
        batch (TextBatch): The text, alone in its batch.
        per_eval (int): Perturbations in one pass of the model; 1 is Captum's default.
    """

    def __init__(
        self, text_model: TextModel, batch: TextBatch, per_eval: int = 1
    ) -> None:
        self.model = text_model
        self.per_eval = per_eval
        self.ids, self.mask = batch.input_ids, batch.attention_mask
        self.places = batch.attributable[0].nonzero().squeeze(1)
        self.blank = text_model.replacement_id
        self.seed = batch.seeds[0]
        with torch.no_grad():
            p = text_model.probabilities(self.ids, self.mask)
        self.target = int(p.argmax())
        self.full = float(p[0, self.target])

    def without(self, places: list[int]) -> Tensor:
        """Probabilities (classes,) of the text with these tokens replaced."""
        changed = self.ids.clone()
        changed[0, places] = self.blank
        with torch.no_grad():
            return self.model.probabilities(changed, self.mask)[0]

    def drop(self, places: list[int]) -> float:
        return self.full - float(self.without(places)[self.target])

    def scores(self, name: str) -> list[float]:
        """The scores of the tokens that may be replaced."""
        if name == "integrated_gradients":
            layer: Any = LayerIntegratedGradients(
                self.model.probabilities, self.model.embedding
            )
            reference = self.ids.clone()
            reference[0, self.places] = self.blank
            found = layer.attribute(
                self.ids, reference, self.target, additional_forward_args=(self.mask,)
            )
            return self._listed(found.sum(dim=2)[0, self.places])
        if name in ("saliency", "input_x_gradient"):
            kind = Saliency if name == "saliency" else InputXGradient
            gradient: Any = kind(self.model.probabilities_from_embeddings)
            found = gradient.attribute(
                self.model.embed(self.ids).requires_grad_(),
                target=self.target,
                additional_forward_args=(self.mask,),
            )
            return self._listed(found.sum(dim=2)[0, self.places])
        options: dict[str, Any] = {
            "target": self.target,
            "baselines": self.blank,
            "perturbations_per_eval": self.per_eval,
        }
        method: Any
        if name == "lime":
            method = Lime(
                self._forward, SkLearnRidge(alpha=1.0), _similarity, self._samples
            )
            options["n_samples"] = LIME_SAMPLES
        elif name == "occlusion":
            method = Occlusion(self._forward)
            options["sliding_window_shapes"] = (1,)
        else:
            method = FeatureAblation(self._forward)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            found = method.attribute(self.ids[:, self.places], **options)
        return self._listed(found[0])

    def _forward(self, features: Tensor) -> Tensor:
        changed = self.ids.repeat(len(features), 1)
        changed[:, self.places] = features
        return self.model.probabilities(changed, self.mask.expand(len(features), -1))

    def _samples(self, inputs: Tensor, **_: object) -> Iterator[Tensor]:
        # The harness's draws, without which the numbers could not be compared.
        half = torch.full((LIME_SAMPLES, inputs.shape[1]), 0.5)
        yield from torch.bernoulli(half).long().split(1)

    @staticmethod
    def _listed(scores: Tensor) -> list[float]:
        # Kept in float32, as the harness keeps them.
        listed: list[float] = scores.detach().float().tolist()
        return listed

    def metric(self, name: str, scores: list[float]) -> float:
        """One metric of one explanation."""
        if name in ("positive_words", "inhibitor_words"):
            return self._signed_words(scores, 1 if name == "positive_words" else -1)
        places = self.places.tolist()
        if name == "polarity_violation":
            strongest = max(range(len(places)), key=lambda i: abs(scores[i]))
            product = scores[strongest] * self.drop([places[strongest]])
            return math.nan if product == 0 else float(product < 0)
        if name == "leave_one_out_agreement":
            drops = torch.tensor([[self.drop([place]) for place in places]]).double()
            everywhere = torch.ones_like(drops, dtype=torch.bool)
            return float(kendall_tau_b(torch.tensor([scores]), drops, everywhere))
        if name == "infidelity":
            return self._infidelity(scores)
        ranked = self._ranked(scores, 1)
        if name == "decision_flip":
            for n in self._sizes([step / 20 for step in range(1, 21)]):
                p = self.without(ranked[:n])
                if bool((p > p[self.target]).any()):
                    return n / len(places)
            return 1.0
        if name == "comprehensiveness":
            drops_of = [self.drop(ranked[:n]) for n in self._sizes(DEFAULT_BINS)]
        else:
            drops_of = [self.drop(ranked[n:]) for n in self._sizes(DEFAULT_BINS)]
        return sum(drops_of) / len(drops_of)

    def _ranked(self, scores: list[float], sign: int) -> list[int]:
        """Places in the text, the highest (or lowest) score first."""
        order = sorted(range(len(scores)), key=lambda i: -sign * scores[i])
        return [int(self.places[i]) for i in order]

    def _sizes(self, shares: Sequence[float]) -> list[int]:
        return [math.ceil(share * len(self.places) - 1e-9) for share in shares]

    def _signed_words(self, scores: list[float], sign: int) -> float:
        n_named = sum(sign * score > 0 for score in scores)
        if n_named == 0:
            return math.nan
        named = self._ranked(scores, sign)[:n_named]
        drops = [self.drop(named[:n]) for n in self._sizes(DEFAULT_BINS)]
        return sign * sum(drops) / len(drops)

    def _infidelity(self, scores: list[float]) -> float:
        removed = random_masks(torch.ones(1, len(scores), dtype=torch.bool))[0]
        sums, drops = [], []
        for chosen in removed.tolist():
            gone = [i for i, is_gone in enumerate(chosen) if is_gone]
            sums.append(sum(scores[i] for i in gone))
            drops.append(self.drop([int(self.places[i]) for i in gone]))
        pairs = list(zip(sums, drops, strict=True))
        squares = sum(total**2 for total in sums)
        factor = sum(total * drop for total, drop in pairs) / (squares or 1)
        return sum((factor * total - drop) ** 2 for total, drop in pairs) / len(pairs)
