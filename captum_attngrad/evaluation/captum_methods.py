r"""Captum's attributions as methods that can be compared."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from captum.attr import (
    Attribution,
    DeepLift,
    DeepLiftShap,
    GradientAttribution,
    GradientShap,
    LayerAttribution,
    NoiseTunnel,
    PerturbationAttribution,
)
from torch import Tensor, nn

from captum_attngrad.metrics import _parameters
from captum_attngrad.text import TextBatch, TextModel

#: The baseline of a text: its tokens replaced, or embeddings of zeros.
Baselines = Literal["replacement", "zero"]

#: Rows that go through the model together in perturbation methods.
ROWS_PER_EVAL = 512
#: Rows of integration steps. The activations that a backward pass needs no longer fit a
#: processor's cache with more rows, which takes longer.
ROWS_WITH_GRADIENTS = 128


def differentiable(text_model: TextModel) -> AbstractContextManager[None]:
    """A block in which recurrent layers can be differentiated in evaluation mode."""
    return _parameters.differentiable(text_model.model)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators that Captum draws from, seeded here and then restored."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(state)


class _OnEmbeddings(nn.Module):
    """The model as a module that takes embeddings, which is what DeepLift hooks."""

    def __init__(self, text_model: TextModel) -> None:
        super().__init__()
        self.model = text_model.model
        self._text_model = text_model

    def forward(
        self, embeddings: Tensor, attention_mask: Tensor, *extras: Tensor
    ) -> Tensor:
        return self._text_model.probabilities_from_embeddings(
            embeddings, attention_mask, *extras
        )


def _innermost(attribution: Attribution) -> Attribution:
    while isinstance(attribution, NoiseTunnel):
        attribution = attribution.attribution_method
    return attribution


def _with_forward(attribution: Attribution, forward: Callable[..., Tensor]) -> Any:
    """A copy that explains ``forward``; the user's instance stays as it is."""
    bound: Any = copy.copy(attribution)
    if isinstance(bound, NoiseTunnel):
        bound.attribution_method = _with_forward(bound.attribution_method, forward)
    elif hasattr(bound, "model") and isinstance(bound, DeepLift):
        bound.model = forward  # type: ignore[assignment]
    bound.forward_func = forward
    return bound


def _scores(output: Any) -> Tensor:
    """(batch, tokens), embeddings summed over their dimension."""
    if isinstance(output, (tuple, list)) and len(output) == 1:
        output = output[0]
    if not isinstance(output, Tensor):
        raise TypeError(
            f"attribute returned {type(output).__name__}; expected one tensor."
        )
    return output.sum(dim=-1) if output.dim() == 3 else output


def replaced_ids(text_model: TextModel, batch: TextBatch) -> Tensor:
    """The ids with every attributable token replaced: the usual baseline."""
    return batch.input_ids.masked_fill(batch.attributable, text_model.replacement_id)


def _takes_baselines(attribution: Attribution) -> bool:
    inner = _innermost(attribution)
    return "baselines" in inspect.signature(inner.attribute).parameters


def _of_tokens(
    attribution: Attribution,
    text_model: TextModel,
    batch: TextBatch,
    target: Tensor,
    baselines: Baselines,
    arguments: dict[str, Any],
) -> Tensor:
    """Attributions that go through ids (of a layer) or embeddings (of the input)."""
    of_layer = isinstance(_innermost(attribution), LayerAttribution)
    takes_baselines = _takes_baselines(attribution)
    forward: Any
    if of_layer:
        forward = text_model.probabilities
        inputs, reference = batch.input_ids, replaced_ids(text_model, batch)
        if takes_baselines and baselines == "zero":
            raise ValueError(
                "An attribution of a layer starts from token ids, which cannot be "
                "zero embeddings; use the attribution of the input, such as "
                "IntegratedGradients, for baselines='zero'."
            )
    else:
        forward = text_model.probabilities_from_embeddings
        if isinstance(_innermost(attribution), DeepLift):
            forward = _OnEmbeddings(text_model)
        inputs = text_model.embed(batch.input_ids).requires_grad_()
        reference = torch.zeros_like(inputs)
        if baselines == "replacement":
            reference = text_model.embed(replaced_ids(text_model, batch))
    if takes_baselines:
        arguments = {"baselines": reference, **arguments}
    with differentiable(text_model):
        output = _with_forward(attribution, forward).attribute(
            inputs,
            target=target,
            additional_forward_args=batch.forward_args,
            **arguments,
        )
    return _scores(output)


def _of_features(
    attribution: Attribution,
    text_model: TextModel,
    batch: TextBatch,
    target: Tensor,
    arguments: dict[str, Any],
) -> Tensor:
    """Perturbation of one text. Only attributable tokens are features: padding
    would be a feature without effect that counts all the same."""
    positions = batch.attributable[0].nonzero().squeeze(1)

    def forward(features: Tensor) -> Tensor:
        perturbed = batch.input_ids.repeat(len(features), 1)
        perturbed[:, positions] = features
        args = (arg.expand(len(features), *arg.shape[1:]) for arg in batch.forward_args)
        return text_model.probabilities(perturbed, *args)

    with torch.no_grad():
        output = _with_forward(attribution, forward).attribute(
            batch.input_ids[:, positions],
            target=target,
            **{"baselines": text_model.replacement_id, **arguments},
        )
    scores = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
    scores[0, positions] = output[0].to(scores)
    return scores


def run_captum(
    attribution: Attribution,
    text_model: TextModel,
    batch: TextBatch,
    target: Tensor,
    baselines: Baselines = "replacement",
    **arguments: Any,
) -> Tensor:
    r"""
    Scores of one of Captum's attributions for a batch of texts.

    Its ``forward_func`` is replaced, in a copy, by the probabilities of ``text_model``,
    so that all methods explain the same. Attributions of a layer get token ids,
    gradients of the input get embeddings and are summed over their dimension, and
    perturbations get the attributable tokens of one text at a time.

    Args:
        attribution (Attribution): The instance.
        text_model (TextModel): The classifier.
        batch (TextBatch): The texts.
        target (Tensor): Explained classes, (batch,).
        baselines (str): "replacement" or "zero", where the attribution takes a
            baseline.
            Default: "replacement"
        **arguments (Any): Further arguments of ``attribute``.

    Returns:
        *Tensor*: Scores, (batch, tokens).
    """
    inner = _innermost(attribution)
    perturbs = isinstance(inner, PerturbationAttribution) and not isinstance(
        inner, LayerAttribution
    )
    if not perturbs and not isinstance(inner, (GradientAttribution, LayerAttribution)):
        raise TypeError(
            f"{type(inner).__name__} is neither a gradient, a layer nor a perturbation "
            "attribution of Captum; pass a function (text_model, batch, target) that "
            "calls it."
        )
    draws = isinstance(attribution, NoiseTunnel) or isinstance(
        inner, (GradientShap, DeepLiftShap)
    )
    if not perturbs and not draws:
        return _of_tokens(attribution, text_model, batch, target, baselines, arguments)
    # One text at a time, with its own seed: the batch it is in must not matter.
    scores = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
    for i, seed in enumerate(batch.seeds):
        row, of_row = batch.trimmed_row(i), target[i : i + 1]
        with _seeded(seed):
            if perturbs:
                part = _of_features(attribution, text_model, row, of_row, arguments)
            else:
                part = _of_tokens(
                    attribution, text_model, row, of_row, baselines, arguments
                )
        scores[i, : part.shape[1]] = part[0].to(scores)
    return scores
