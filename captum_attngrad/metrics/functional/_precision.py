r"""Enough digits for differences and sums of squares."""

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """The values in float64, or float32 on the one device that has no float64."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)
