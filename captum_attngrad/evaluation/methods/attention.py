r"""Methods that read the attention weights or their gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_attngrad.attr import (
    AttentionDeepLift,
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    AttentionWeights,
    IntegratedAttentionGradient,
    JointIntegratedGradients,
)
from captum_attngrad.evaluation.captum_methods import (
    ROWS_WITH_GRADIENTS,
    differentiable,
)
from captum_attngrad.evaluation.registry import Method
from captum_attngrad.text import TextBatch, TextModel

INTEGRATION_STEPS = 20
JOINT_STEPS = 3


def _gradient(
    text_model: TextModel, batch: TextBatch, target: Tensor, **options: Any
) -> Tensor:
    method = AttentionGradient(
        text_model.probabilities, text_model.attention_layers, **options
    )
    with differentiable(text_model):
        scores: Tensor = method.attribute(
            batch.input_ids, target, additional_forward_args=batch.forward_args
        )
    return scores


def _integrated(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    method = IntegratedAttentionGradient(
        text_model.probabilities, text_model.attention_layers
    )
    with differentiable(text_model):
        scores: Tensor = method.attribute(
            batch.input_ids,
            target,
            additional_forward_args=batch.forward_args,
            n_steps=INTEGRATION_STEPS,
            internal_batch_size=max(ROWS_WITH_GRADIENTS, len(batch)),
        )
    return scores


def _from_replaced(
    kind: type[JointIntegratedGradients] | type[AttentionDeepLift],
    text_model: TextModel,
    batch: TextBatch,
    target: Tensor,
    **options: int,
) -> Tensor:
    """Scores of the log-odds, from the text with every token replaced."""
    method = kind(
        text_model.log_odds,
        text_model.attention_layers,
        embedding=text_model.embedding,
    )
    masked = batch.input_ids.masked_fill(batch.attributable, text_model.replacement_id)
    with differentiable(text_model):
        scores: Tensor = method.attribute(
            batch.input_ids,
            masked,
            target,
            additional_forward_args=batch.forward_args,
            **options,
        )
    return scores


def _joint(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    return _from_replaced(
        JointIntegratedGradients,
        text_model,
        batch,
        target,
        n_steps=JOINT_STEPS,
        internal_batch_size=max(ROWS_WITH_GRADIENTS, len(batch)),
    )


def _without_padding(
    build: Callable[[TextModel], Attribution],
    text_model: TextModel,
    batch: TextBatch,
    target: Tensor,
    of_first: bool = False,
) -> Tensor:
    """Scores that sum over queries, among which padding must not be: texts of one
    length go together, without any."""
    method: Any = build(text_model)
    scores = torch.zeros(batch.input_ids.shape, device=batch.input_ids.device)
    lengths = [len(tokens) for tokens in batch.tokens]
    for length in sorted(set(lengths)):
        rows = [i for i, n in enumerate(lengths) if n == length]
        # A special token in front ([CLS]) is what the classifier reads.
        first = of_first and not bool(batch.attributable[rows, 0].any())
        options = {"query": 0} if first else {}
        some = batch.rows(rows, length)
        with differentiable(text_model):
            part = method.attribute(
                some.input_ids,
                target[rows],
                additional_forward_args=some.forward_args,
                **options,
            )
        scores[rows, :length] = part.detach().to(scores)
    return scores


METHODS = (
    Method(
        "attention_gradient",
        _gradient,
        "AttentionGradient: gradient with respect to the attention weights, summed "
        "over heads and queries",
    ),
    Method(
        "attention_x_gradient",
        partial(_gradient, multiply_by_attention=True),
        "AttentionGradient with multiply_by_attention=True",
    ),
    Method(
        "attention_gradient_centered",
        partial(_gradient, center=True),
        "AttentionGradient with center=True: less the attention-weighted mean of its "
        "row, which means nothing as weights sum to one",
    ),
    Method(
        "attention_x_gradient_centered",
        partial(_gradient, multiply_by_attention=True, center=True),
        "AttentionGradient with multiply_by_attention=True and center=True: gradient "
        "with respect to the scores before the softmax",
    ),
    Method(
        "integrated_attention_gradient",
        _integrated,
        f"IntegratedAttentionGradient, {INTEGRATION_STEPS} steps from no attention to "
        "full attention",
    ),
    Method(
        "joint_integrated_gradients",
        _joint,
        f"JointIntegratedGradients of the log-odds, {JOINT_STEPS} steps from the "
        "replaced tokens without attention to the text with its full attention",
    ),
    Method(
        "attention_deep_lift",
        partial(_from_replaced, AttentionDeepLift),
        "AttentionDeepLift of the log-odds, from the replaced tokens: slopes between "
        "the two runs, with the attention weights held",
    ),
    Method(
        "attention_deep_lift_joint",
        partial(_from_replaced, AttentionDeepLift, joint_steps=2),
        "AttentionDeepLift of the log-odds with joint_steps=2: the mean of "
        "attention_deep_lift and of two steps of JointIntegratedGradients",
    ),
    Method(
        "attention_weights",
        partial(
            _without_padding,
            lambda text_model: AttentionWeights(
                text_model.probabilities, text_model.attention_layers
            ),
        ),
        "AttentionWeights: the weights themselves, mean over heads, sum over queries "
        "and layers; they have no sign",
    ),
    Method(
        "attention_rollout",
        partial(
            _without_padding,
            lambda text_model: AttentionRollout(
                text_model.probabilities, text_model.attention_layers
            ),
            of_first=True,
        ),
        "AttentionRollout (Abnar and Zuidema 2020), of the leading special token if "
        "there is one; it has no sign",
    ),
    Method(
        "attention_relevance",
        partial(
            _without_padding,
            lambda text_model: AttentionRelevance(
                text_model.probabilities, text_model.attention_layers
            ),
            of_first=True,
        ),
        "AttentionRelevance (Chefer et al. 2021), of the leading special token if "
        "there is one; it has no sign",
    ),
    Method(
        "attention_relevance_signed",
        partial(
            _without_padding,
            lambda text_model: AttentionRelevance(
                text_model.probabilities, text_model.attention_layers, signed=True
            ),
            of_first=True,
        ),
        "AttentionRelevance with signed=True",
        default=False,
    ),
)
