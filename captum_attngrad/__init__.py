"""Which words did an attention model use, for and against its answer?

Attention gradient for Captum: exact gradients of attention weights, on fused
attention too.
"""

from captum_attngrad._moved import moved as __getattr__  # noqa: F401
from captum_attngrad.attr import (
    AttentionDeepLift,
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    AttentionWeights,
    IntegratedAttentionGradient,
    JointIntegratedGradients,
    LayerAttentionGradient,
    LLMAttentionGradient,
    SequenceAttentionGradient,
    log_odds,
)
from captum_attngrad.capture import capture_attention, find_attention_layers
from captum_attngrad.evaluation import (
    Comparison,
    Method,
    compare,
    plot_metric,
    register_method,
)
from captum_attngrad.metrics import Metric
from captum_attngrad.text import TextModel
from captum_attngrad.verification import verify
from captum_attngrad.visualization import (
    merge_word_pieces,
    plot_alignment,
    plot_heads,
    plot_token_scores,
    save_html,
    text_html,
    text_records,
)

# Read from the source text by the build: keep it a plain string.
__version__ = "0.1.0"

__all__ = [
    "AttentionDeepLift",
    "AttentionGradient",
    "AttentionRelevance",
    "AttentionRollout",
    "AttentionWeights",
    "Comparison",
    "IntegratedAttentionGradient",
    "JointIntegratedGradients",
    "LLMAttentionGradient",
    "LayerAttentionGradient",
    "Method",
    "Metric",
    "SequenceAttentionGradient",
    "TextModel",
    "capture_attention",
    "compare",
    "find_attention_layers",
    "log_odds",
    "merge_word_pieces",
    "plot_alignment",
    "plot_heads",
    "plot_metric",
    "plot_token_scores",
    "register_method",
    "save_html",
    "text_html",
    "text_records",
    "verify",
]
