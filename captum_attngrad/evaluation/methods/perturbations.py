r"""Methods that mask tokens and read the model's answers, and the two anchors."""

from collections.abc import Iterator
from typing import Any

import torch
from captum.attr import (
    FeatureAblation,
    KernelShap,
    LimeBase,
    Occlusion,
    ShapleyValueSampling,
)
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from captum_attngrad.evaluation.captum_methods import ROWS_PER_EVAL, run_captum
from captum_attngrad.evaluation.registry import Method
from captum_attngrad.metrics.functional.masking import masked_answers
from captum_attngrad.metrics.functional.masks import leave_one_out_masks, with_unmasked
from captum_attngrad.text import TextBatch, TextModel

LIME_SAMPLES = 500
# Kernel width and ridge penalty of the LIME authors' own code for text.
LIME_KERNEL_WIDTH = 0.25
LIME_RIDGE_ALPHA = 1.0
KERNEL_SHAP_SAMPLES = 500
SHAPLEY_SAMPLES = 25


class _Ridge:
    """Ridge regression with weighted rows, in closed form: what LimeBase calls of an
    interpretable model, whose base class is private in Captum."""

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha
        self._coefficients = torch.empty(0)

    def fit(self, train_data: DataLoader[Any], **kwargs: Any) -> None:
        dataset = train_data.dataset
        assert isinstance(dataset, TensorDataset)
        x, y, weight = (tensor.double() for tensor in dataset.tensors)
        weight = weight.unsqueeze(1)
        # Centered, so that the constant is not penalized.
        x = x - (weight * x).sum(dim=0) / weight.sum()
        y = y - (weight.squeeze(1) * y).sum() / weight.sum()
        penalty = self._alpha * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        normal = x.T @ (weight * x) + penalty
        self._coefficients = torch.linalg.solve(normal, x.T @ (weight.squeeze(1) * y))

    def representation(self) -> Tensor:
        return self._coefficients.unsqueeze(0)

    def __call__(self, x: Any) -> Any:
        raise NotImplementedError("Only the coefficients are asked for.")


class _Samples:
    """LIME's samples of a text, drawn together; Captum draws one at a time."""

    def __init__(self) -> None:
        self._variants: Iterator[Tensor] = iter(())
        self._weights: Iterator[Tensor] = iter(())

    def kept(self, ids: Tensor, baselines: int, **_: object) -> Iterator[Tensor]:
        """Tokens to keep, each (1, tokens)."""
        half = torch.full((LIME_SAMPLES, ids.shape[1]), 0.5)
        kept = torch.bernoulli(half).to(ids.device)
        self._variants = iter(torch.where(kept.bool(), ids, baselines).split(1))
        # Cosine distance between the whole text and the sample, as bags of
        # words. Captum's own default compares the raw inputs, and token ids are not
        # quantities.
        distance = 1 - kept.double().mean(dim=1).sqrt()
        weights = torch.exp(-distance.square() / (2 * LIME_KERNEL_WIDTH**2))
        self._weights = iter(weights.split(1))
        yield from kept.split(1)

    def variant(self, *_: object, **__: object) -> Tensor:
        """The ids of the last sample."""
        return next(self._variants)

    def weight(self, *_: object, **__: object) -> Tensor:
        """The weight of a sample, by its similarity to the text."""
        return next(self._weights)


def _lime(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    samples = _Samples()
    surrogate: Any = _Ridge(LIME_RIDGE_ALPHA)
    method = LimeBase(
        text_model.probabilities,
        surrogate,
        samples.weight,
        samples.kept,
        perturb_interpretable_space=True,
        from_interp_rep_transform=samples.variant,
        to_interp_rep_transform=None,
    )
    return run_captum(
        method,
        text_model,
        batch,
        target,
        n_samples=LIME_SAMPLES,
        perturbations_per_eval=ROWS_PER_EVAL,
    )


def _kernel_shap(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    scores = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
    for i in range(len(batch)):
        row, of_row = batch.trimmed_row(i), target[i : i + 1]
        if int(row.attributable.sum()) == 1:
            # Captum weighs coalitions between none and all tokens; here there are none.
            part = _leave_one_out(text_model, row, of_row)
        else:
            part = run_captum(
                KernelShap(text_model.probabilities),
                text_model,
                row,
                of_row,
                n_samples=KERNEL_SHAP_SAMPLES,
                perturbations_per_eval=ROWS_PER_EVAL,
            )
        scores[i, : part.shape[1]] = part[0].to(scores)
    return scores


def _shapley(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    return run_captum(
        ShapleyValueSampling(text_model.probabilities),
        text_model,
        batch,
        target,
        n_samples=SHAPLEY_SAMPLES,
        perturbations_per_eval=ROWS_PER_EVAL,
    )


def _occlusion(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    return run_captum(
        Occlusion(text_model.probabilities),
        text_model,
        batch,
        target,
        sliding_window_shapes=(1,),
        perturbations_per_eval=ROWS_PER_EVAL,
    )


def _feature_ablation(
    text_model: TextModel, batch: TextBatch, target: Tensor
) -> Tensor:
    return run_captum(
        FeatureAblation(text_model.probabilities),
        text_model,
        batch,
        target,
        perturbations_per_eval=ROWS_PER_EVAL,
    )


def _leave_one_out(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    p = masked_answers(
        text_model.probabilities,
        batch.input_ids,
        with_unmasked(leave_one_out_masks(batch.attributable)),
        target,
        text_model.replacement_id,
        additional_forward_args=batch.forward_args,
    ).p
    return p[:, :1] - p[:, 1:]


def _random(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    scores = torch.zeros(batch.input_ids.shape)
    for row, seed in enumerate(batch.seeds):
        generator = torch.Generator().manual_seed(seed)
        # One draw for each token of the text: padding must not change them.
        length = len(batch.tokens[row])
        scores[row, :length] = torch.rand(length, generator=generator) * 2 - 1
    return scores.to(batch.input_ids.device)


METHODS = (
    Method(
        "lime",
        _lime,
        f"Captum's LimeBase over tokens: {LIME_SAMPLES} samples, ridge regression "
        f"(alpha {LIME_RIDGE_ALPHA:g}), exponential kernel of width "
        f"{LIME_KERNEL_WIDTH} on the cosine distance of the kept tokens",
    ),
    Method(
        "kernel_shap",
        _kernel_shap,
        f"Captum's KernelShap over tokens: {KERNEL_SHAP_SAMPLES} samples",
        requires=("sklearn",),
    ),
    Method(
        "shapley_value_sampling",
        _shapley,
        f"Captum's ShapleyValueSampling over tokens: {SHAPLEY_SAMPLES} permutations",
    ),
    Method(
        "occlusion",
        _occlusion,
        "Captum's Occlusion: each token in turn becomes the replacement token, which "
        "is leave_one_out",
        default=False,
    ),
    Method(
        "feature_ablation",
        _feature_ablation,
        "Captum's FeatureAblation over tokens, which is leave_one_out",
        default=False,
    ),
    Method(
        "leave_one_out",
        _leave_one_out,
        "drop of the probability when the token is replaced, an anchor",
    ),
    Method("random", _random, "uniform random scores in [-1, 1], the lower anchor"),
)
