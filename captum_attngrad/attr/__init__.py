"""Attributions built on attention weights and their gradients."""

from captum_attngrad.attr.attention_gradient import AttentionGradient
from captum_attngrad.attr.layer_attention_gradient import LayerAttentionGradient

__all__ = ["AttentionGradient", "LayerAttentionGradient"]
