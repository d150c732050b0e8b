r"""Captum's methods that take gradients with respect to the embeddings."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import (
    Attribution,
    DeepLift,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    LayerIntegratedGradients,
    Saliency,
)
from torch import Tensor

from captum_attngrad.evaluation.captum_methods import (
    ROWS_WITH_GRADIENTS,
    Baselines,
    replaced_ids,
    run_captum,
)
from captum_attngrad.evaluation.registry import Method, MethodFunction
from captum_attngrad.text import TextBatch, TextModel

IG_STEPS = 50
GRADIENT_SHAP_SAMPLES = 20
# DeepLift's scores add up to the change of the output where its rules reach every
# nonlinearity; if a larger share is missing, they do not.
DEEP_LIFT_TOLERANCE = 0.05


def _captum(
    build: Callable[[TextModel], Attribution],
    baselines: Baselines = "replacement",
    **arguments: Any,
) -> MethodFunction:
    def method(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
        return run_captum(
            build(text_model), text_model, batch, target, baselines, **arguments
        )

    return method


def _deep_lift(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    attribution: Any = DeepLift(text_model.model)
    with warnings.catch_warnings():
        # Captum says that it sets hooks and removes them again.
        warnings.filterwarnings("ignore", "Setting forward, backward hooks")
        scores = run_captum(attribution, text_model, batch, target).detach()
    ids = (batch.input_ids, replaced_ids(text_model, batch))
    with torch.no_grad():
        full, reference = (
            text_model.probabilities(i, *batch.forward_args).gather(
                1, target.unsqueeze(1)
            )
            for i in ids
        )
    change = (full - reference).squeeze(1)
    missing = (scores.sum(dim=1) - change).abs()
    if bool((missing > DEEP_LIFT_TOLERANCE * change.abs().clamp_min(0.05)).any()):
        worst = int(missing.argmax())
        raise RuntimeError(
            "DeepLift's rules do not reach every nonlinearity of this model (Captum "
            "hooks modules such as nn.ReLU and nn.Softmax, not functions): scores add "
            f"up to {float(scores[worst].sum()):.3f} where the probability changes by "
            f"{float(change[worst]):.3f}."
        )
    return scores


METHODS = (
    Method(
        "saliency",
        _captum(lambda text_model: Saliency(text_model.probabilities)),
        "Captum's Saliency: absolute gradient of the embedding, summed over its "
        "dimension; it has no sign",
    ),
    Method(
        "input_x_gradient",
        _captum(lambda text_model: InputXGradient(text_model.probabilities)),
        "Captum's InputXGradient on the embedding, summed over its dimension",
    ),
    Method(
        "integrated_gradients",
        _captum(
            lambda text_model: LayerIntegratedGradients(
                text_model.probabilities, text_model.embedding
            ),
            n_steps=IG_STEPS,
            internal_batch_size=ROWS_WITH_GRADIENTS,
        ),
        f"Captum's LayerIntegratedGradients on the embedding, {IG_STEPS} steps from "
        "the replacement token, summed over the embedding dimension",
    ),
    Method(
        "integrated_gradients_zero",
        _captum(
            lambda text_model: IntegratedGradients(text_model.probabilities),
            "zero",
            n_steps=IG_STEPS,
            internal_batch_size=ROWS_WITH_GRADIENTS,
        ),
        f"Captum's IntegratedGradients on the embedding, {IG_STEPS} steps from zero, "
        "summed over its dimension",
    ),
    Method(
        "gradient_shap",
        _captum(
            lambda text_model: GradientShap(text_model.probabilities),
            n_samples=GRADIENT_SHAP_SAMPLES,
        ),
        f"Captum's GradientShap on the embedding, {GRADIENT_SHAP_SAMPLES} random "
        "points on the way from the replacement token, summed over its dimension",
    ),
    Method(
        "deep_lift",
        _deep_lift,
        "Captum's DeepLift on the embedding, from the replacement token, where its "
        "scores add up to the change of the probability (within "
        f"{DEEP_LIFT_TOLERANCE:.0%})",
        default=False,
    ),
)
