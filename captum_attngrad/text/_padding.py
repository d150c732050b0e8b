"""Whether a model's answer depends on the padding that texts get in a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_attngrad.text.text_batch import TextBatch


def depends_on_padding(logits: Callable[..., Tensor], batch: TextBatch) -> bool:
    r"""
    Whether the model answers differently for a text beside a longer one than alone.

    Models that mix positions in other ways than by masked attention (FNet, ConvBERT,
    Nystromformer) see the padding; some read their answer at the last position.

    Args:
        logits (Callable): The model, as of ``input_ids`` and further arguments.
        batch (TextBatch): Two texts, the shorter one first.

    Returns:
        *bool*
    """
    one = batch.trimmed_row(0)
    alone = logits(one.input_ids, *one.forward_args)[0]
    try:
        padded = logits(batch.input_ids, *batch.forward_args)[0]
    except Exception:  # a model that takes no batches of different lengths
        return True
    if not bool(torch.isfinite(alone).all()):
        return False
    size = max(1.0, float(alone.abs().max()))
    tolerance = size * float(torch.finfo(alone.dtype).eps) ** 0.5
    return not float((padded - alone).abs().max()) <= tolerance
