"""Attributions built on attention weights and their gradients."""

from captum_attngrad.attr._core.log_odds import log_odds
from captum_attngrad.attr.attention_gradient import AttentionGradient
from captum_attngrad.attr.attention_weights import AttentionWeights
from captum_attngrad.attr.layer_attention_gradient import LayerAttentionGradient
from captum_attngrad.attr.llm._prefill import PrefilledPrompt
from captum_attngrad.attr.llm.inputs import ChatInput, SourcesInput, TextSegmentInput
from captum_attngrad.attr.llm.llm_attention_gradient import LLMAttentionGradient
from captum_attngrad.attr.llm.result import AnswerAttribution
from captum_attngrad.attr.path.attention_deep_lift import AttentionDeepLift
from captum_attngrad.attr.path.integrated_attention_gradient import (
    IntegratedAttentionGradient,
)
from captum_attngrad.attr.path.joint_integrated_gradients import (
    JointIntegratedGradients,
)
from captum_attngrad.attr.propagation.attention_relevance import AttentionRelevance
from captum_attngrad.attr.propagation.attention_rollout import AttentionRollout
from captum_attngrad.attr.sequence._generation import GeneratedExplanation
from captum_attngrad.attr.sequence.sequence_attention_gradient import (
    SequenceAttentionGradient,
)

__all__ = [
    "AnswerAttribution",
    "AttentionDeepLift",
    "AttentionGradient",
    "AttentionRelevance",
    "AttentionRollout",
    "AttentionWeights",
    "ChatInput",
    "GeneratedExplanation",
    "IntegratedAttentionGradient",
    "JointIntegratedGradients",
    "LLMAttentionGradient",
    "LayerAttentionGradient",
    "PrefilledPrompt",
    "SequenceAttentionGradient",
    "SourcesInput",
    "TextSegmentInput",
    "log_odds",
]
