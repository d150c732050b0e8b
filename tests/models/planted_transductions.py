"""Transductions whose alignment is known, and a model that learns one in seconds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_attngrad.models import AttentionSeq2Seq

TASKS = ("copy", "reverse", "lookup")
END = 2
_FIRST, _SYMBOLS = 3, 8
# Ids 0 to 2 are padding, start and end.
_TABLE = torch.tensor([5, 3, 9, 7, 10, 4, 6, 8])


def sample(task: str, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, outputs (an end id last) and the input that made each output."""
    inputs = torch.randint(_FIRST, _FIRST + _SYMBOLS, (rows, length))
    alignment = torch.arange(length)
    outputs = inputs
    if task == "reverse":
        outputs, alignment = inputs.flip(1), alignment.flip(0)
    elif task == "lookup":
        outputs = _TABLE[inputs - _FIRST]
    return inputs, F.pad(outputs, (0, 1), value=END), alignment


def trained_on(task: str, steps: int = 300) -> AttentionSeq2Seq:
    """Return a small model, in eval mode, trained on inputs of 5 to 8 symbols."""
    model = AttentionSeq2Seq(_FIRST + _SYMBOLS, _FIRST + _SYMBOLS, 16, hidden_size=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        inputs, outputs, _ = sample(task, 64, 5 + step % 4)
        logits = model(inputs, model.decoder_inputs(outputs))
        loss = F.cross_entropy(logits.flatten(0, 1), outputs.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()
