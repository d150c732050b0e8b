r"""Taking gradients of recurrent models in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """cuDNN refuses the backward pass of a recurrent layer in evaluation mode;
    PyTorch's own kernels do not."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    enabled = torch.backends.cudnn.enabled and not recurrent
    with torch.backends.cudnn.flags(enabled=enabled):
        yield
