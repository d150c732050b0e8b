"""Which words did an attention model use, for and against its answer?

Attention gradient for Captum: exact gradients of attention weights, on fused
attention too.
"""

from captum_attngrad.attr import AttentionGradient, LayerAttentionGradient
from captum_attngrad.capture import (
    AttentionCall,
    AttentionLayerInfo,
    AttentionLayers,
    AttentionRecord,
    capture_attention,
    find_attention_layers,
)

__version__ = "0.1.0"

__all__ = [
    "AttentionCall",
    "AttentionGradient",
    "AttentionLayerInfo",
    "AttentionLayers",
    "AttentionRecord",
    "LayerAttentionGradient",
    "capture_attention",
    "find_attention_layers",
]
