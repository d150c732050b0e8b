"""Where autograd finds a gradient, also in a model that is frozen or works in place."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from captum_attngrad._torch import is_view


def gradient_source(tensor: Tensor) -> Any:
    """Where autograd finds the gradient of ``tensor`` as it is now, even if the model
    changes it in place later."""
    return tensor if tensor.is_leaf else get_gradient_edge(tensor)


def exclusive(tensor: Tensor) -> Tensor:
    """A tensor with the same data that takes gradients and is used nowhere else."""
    if tensor.requires_grad:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_()


def anchored(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """``(anchor, what the model gets)``: autograd can find the anchor's gradient also
    where nothing below it takes gradients (a frozen model)."""
    if tensor.requires_grad:
        # A copy of a view: changing that in place would rebuild the graph from its base
        # without the anchor. (Torch 2.14 gives one for queries of three dimensions.)
        return tensor, tensor.clone() if is_view(tensor) else tensor
    anchor = tensor.detach().requires_grad_()
    # A copy, since a leaf (or a view of one) must not be changed in place.
    return anchor, anchor.clone()
