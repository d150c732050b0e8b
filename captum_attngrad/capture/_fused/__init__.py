"""Attention that never shows its weights: run and recorded."""
