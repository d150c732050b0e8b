"""Attention that is written out with a softmax: recognized, run and recorded."""
