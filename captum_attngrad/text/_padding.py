"""Whether a model's answer depends on the padding that texts get in a batch."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from captum_attngrad.text._texts import Text

if TYPE_CHECKING:
    from captum_attngrad.text.text_model import TextModel


def padding_matters(text_model: TextModel, texts: list[Text]) -> bool:
    r"""
    Whether the model answers differently for a text beside a longer one than alone.

    Models that mix positions otherwise than by masked attention (FNet, ConvBERT,
    Nystromformer) see the padding; some read their answer at the last position.

    Args:
        text_model (TextModel): The model.
        texts (list): Two texts, the shorter one first.

    Returns:
        *bool*
    """
    with warnings.catch_warnings(), torch.no_grad(), text_model.evaluation_mode():
        warnings.simplefilter("ignore", UserWarning)
        batch = text_model.batch(texts)
        one = batch.trimmed_row(0)
        alone = text_model.logits(one.input_ids, *one.forward_args)[0]
        try:
            padded = text_model.logits(batch.input_ids, *batch.forward_args)[0]
        except Exception:  # a model that takes no batches of different lengths
            return True
    if not bool(torch.isfinite(alone).all()):
        return False
    size = max(1.0, float(alone.abs().max()))
    tolerance = size * float(torch.finfo(alone.dtype).eps) ** 0.5
    return not float((padded - alone).abs().max()) <= tolerance
