"""Attention whose weights are held at their mean over two other runs of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture.calls import AttentionCall, FusedCall

# The same call in both runs.
BothRuns = tuple[AttentionCall, AttentionCall]


def held_output(both: BothRuns, value: Tensor) -> Tensor:
    """``(A + A') v / 2`` for a fused call."""
    one, two = both
    assert isinstance(one, FusedCall)
    assert isinstance(two, FusedCall)
    arranged = value.reshape(one.batch_size, -1, *value.shape[-2:])
    total = one.attend(arranged) + two.attend(arranged)
    return (total / 2).reshape(*value.shape[:-2], *total.shape[-2:])


def held_weights(both: BothRuns) -> Tensor:
    """``(A + A') / 2`` for weights that the model has written out."""
    one, two = both
    assert isinstance(one, SoftmaxCall)
    assert isinstance(two, SoftmaxCall)
    return torch.lerp(one.as_written, two.as_written, 0.5)
