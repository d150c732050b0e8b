r"""The methods that are built in. All of them explain the class's probability."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import LayerIntegratedGradients, Lime, Occlusion
from torch import Tensor, nn

from captum_attngrad.attr import AttentionGradient
from captum_attngrad.capture import capture_attention
from captum_attngrad.compare.registry import Method, register_method
from captum_attngrad.compare.text_model import TextBatch, TextModel

# Rows that perturbation methods and integration steps put through the model at once.
_ROWS_PER_EVAL = 512

IG_STEPS = 50
LIME_SAMPLES = 500
# Kernel width and ridge penalty of the LIME authors' own code for text.
LIME_KERNEL_WIDTH = 0.25
LIME_RIDGE_ALPHA = 1.0


@contextmanager
def _differentiable(text_model: TextModel) -> Iterator[None]:
    # cuDNN refuses the backward pass of a recurrent layer in evaluation mode; PyTorch's
    # own kernels do not.
    recurrent = any(isinstance(m, nn.RNNBase) for m in text_model.model.modules())
    enabled = torch.backends.cudnn.enabled and not recurrent
    with torch.backends.cudnn.flags(enabled=enabled):
        yield


def _length(batch: TextBatch, row: int) -> int:
    """Where a text ends, without the padding that follows it."""
    return int(batch.attention_mask[row].nonzero().max()) + 1


def _attention_layer(text_model: TextModel) -> nn.Module | list[nn.Module]:
    return text_model.model if text_model.layer is None else text_model.layer


def _attention_gradient(
    text_model: TextModel,
    batch: TextBatch,
    target: Tensor,
    multiply_by_attention: bool = False,
) -> Tensor:
    method = AttentionGradient(
        text_model.probabilities,
        _attention_layer(text_model),
        multiply_by_attention=multiply_by_attention,
    )
    with _differentiable(text_model):
        scores: Tensor = method.attribute(
            batch.input_ids, target, additional_forward_args=(batch.attention_mask,)
        )
    return scores


def _attention_x_gradient(
    text_model: TextModel, batch: TextBatch, target: Tensor
) -> Tensor:
    return _attention_gradient(text_model, batch, target, multiply_by_attention=True)


def _attention_weights(
    text_model: TextModel, batch: TextBatch, target: Tensor
) -> Tensor:
    layer = _attention_layer(text_model)
    with torch.no_grad(), capture_attention(text_model.model, layer) as record:
        text_model.probabilities(batch.input_ids, batch.attention_mask)
    per_call = [call.weights().mean(dim=1).sum(dim=1) for call in record]
    return torch.stack(per_call).sum(dim=0)


def _integrated_gradients(
    text_model: TextModel, batch: TextBatch, target: Tensor
) -> Tensor:
    method: Any = LayerIntegratedGradients(
        text_model.probabilities, text_model.embedding
    )
    baselines = batch.input_ids.masked_fill(
        batch.attributable, text_model.replacement_id
    )
    with _differentiable(text_model):
        scores: Tensor = method.attribute(
            batch.input_ids,
            baselines,
            target,
            additional_forward_args=(batch.attention_mask,),
            n_steps=IG_STEPS,
            internal_batch_size=_ROWS_PER_EVAL,
        )
    return scores.sum(dim=-1)


def _similarity(_: Tensor, __: Tensor, kept: Tensor, **kwargs: object) -> Tensor:
    # Cosine distance between the whole text and what is left of it, as bags of words.
    # Captum's own default compares the raw inputs, and token ids are not quantities.
    kept = kept.double()
    distance = 1 - kept.sum() / (kept.numel() * kept.square().sum()).sqrt().clamp(1e-12)
    return torch.exp(-distance.square() / (2 * LIME_KERNEL_WIDTH**2))


def _lime_of_one(
    text_model: TextModel, ids: Tensor, mask: Tensor, positions: Tensor, target: Tensor
) -> Tensor:
    """Coefficients of the tokens at ``positions`` of one text, ids (1, tokens)."""

    def forward(features: Tensor) -> Tensor:
        perturbed = ids.repeat(len(features), 1)
        perturbed[:, positions] = features
        return text_model.probabilities(perturbed, mask.expand(len(features), -1))

    # Only what may be removed is a feature of Lime: padding would be one that does
    # nothing and yet counts in the similarity.
    method = Lime(forward, SkLearnRidge(alpha=LIME_RIDGE_ALPHA), _similarity)
    coefficients: Tensor = method.attribute(
        ids[:, positions],
        baselines=text_model.replacement_id,
        target=target,
        n_samples=LIME_SAMPLES,
        perturbations_per_eval=_ROWS_PER_EVAL,
    )
    return coefficients[0]


def _lime(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    scores = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
    for row, seed in enumerate(batch.seeds):
        positions = batch.attributable[row].nonzero().squeeze(1)
        length = _length(batch, row)
        # Captum draws its samples from the global generator of the CPU.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            coefficients = _lime_of_one(
                text_model,
                batch.input_ids[row : row + 1, :length],
                batch.attention_mask[row : row + 1, :length],
                positions,
                target[row : row + 1],
            )
        scores[row, positions] = coefficients.to(scores)
    return scores


def _occlusion(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    scores: Tensor = Occlusion(text_model.probabilities).attribute(
        batch.input_ids,
        sliding_window_shapes=(1,),
        baselines=text_model.replacement_id,
        target=target,
        additional_forward_args=(batch.attention_mask,),
        perturbations_per_eval=max(1, _ROWS_PER_EVAL // len(batch)),
    )
    return scores


def _random(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    scores = torch.zeros(batch.input_ids.shape)
    for row, seed in enumerate(batch.seeds):
        generator = torch.Generator().manual_seed(seed)
        # One draw for each token of the text: the padding must not change them.
        length = _length(batch, row)
        scores[row, :length] = torch.rand(length, generator=generator) * 2 - 1
    return scores.to(batch.input_ids.device)


for _method in (
    Method(
        "attention_gradient",
        _attention_gradient,
        "AttentionGradient: gradient with respect to the attention weights, summed "
        "over heads and queries",
    ),
    Method(
        "attention_x_gradient",
        _attention_x_gradient,
        "AttentionGradient with multiply_by_attention=True",
    ),
    Method(
        "attention_weights",
        _attention_weights,
        "the attention weights themselves: mean over heads, sum over queries and "
        "layers; they have no sign",
    ),
    Method(
        "integrated_gradients",
        _integrated_gradients,
        f"Captum's LayerIntegratedGradients on the embedding, {IG_STEPS} steps from "
        "the replacement token, summed over the embedding dimension",
    ),
    Method(
        "lime",
        _lime,
        f"Captum's Lime over tokens: {LIME_SAMPLES} samples, ridge regression (alpha "
        f"{LIME_RIDGE_ALPHA:g}), exponential kernel of width {LIME_KERNEL_WIDTH} on "
        "the cosine distance of the kept tokens",
        requires=("sklearn",),
    ),
    Method(
        "occlusion",
        _occlusion,
        "Captum's Occlusion: each token in turn becomes the replacement token",
    ),
    Method("random", _random, "uniform random scores in [-1, 1], the lower anchor"),
):
    register_method(_method)
