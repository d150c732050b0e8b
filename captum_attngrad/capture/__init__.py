"""Seeing attention where it happens: record calls, weights and exact gradients."""

from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.context import capture_attention
from captum_attngrad.capture.find import (
    AttentionLayerInfo,
    AttentionLayers,
    find_attention_layers,
)
from captum_attngrad.capture.record import AttentionRecord

__all__ = [
    "AttentionCall",
    "AttentionLayerInfo",
    "AttentionLayers",
    "AttentionRecord",
    "capture_attention",
    "find_attention_layers",
]
