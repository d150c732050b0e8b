"""Running a recurrent encoder over texts of different lengths."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def run_packed(
    encoder: nn.RNNBase, embedded: Tensor, lengths: Tensor
) -> tuple[Tensor, Any]:
    """Return the encoder's states, 0 at the padding on the right, and its last state.
    The encoder must have no dropout."""
    packed = pack_padded_sequence(
        embedded, lengths.cpu(), batch_first=True, enforce_sorted=False
    )
    was_training = encoder.training
    # In eval mode cuDNN's recurrent layers have no backward pass, which attribution
    # needs. Without dropout the mode changes nothing else.
    encoder.training = True
    try:
        output, last = encoder(packed)
    finally:
        encoder.training = was_training
    length = embedded.shape[1]
    states, _ = pad_packed_sequence(output, batch_first=True, total_length=length)
    return states, last
