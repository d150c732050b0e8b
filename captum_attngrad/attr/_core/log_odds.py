"""A score that does not saturate."""

from __future__ import annotations

import torch
from torch import Tensor


def log_odds(logits: Tensor) -> Tensor:
    r"""
    The log-odds of each class, :math:`\log p_c - \log (1 - p_c)`: a score that, unlike
    a probability, does not flatten where the model is sure, and, unlike a logit, does
    not move when a constant is added to all logits.

    Args:
        logits (Tensor): ``(..., classes)``, at least two classes.

    Returns:
        *Tensor* of the shape of ``logits``.

    Raises:
        ValueError: if there are fewer than two classes.

    Examples::

        >>> log_odds(torch.tensor([[2.0, 0.5]]))
        tensor([[ 1.5000, -1.5000]])
    """
    classes = logits.shape[-1] if logits.dim() else 0
    if classes < 2:
        raise ValueError(
            f"log_odds needs logits (..., classes) of at least two classes, got shape "
            f"{tuple(logits.shape)}. For one logit it is the logit itself."
        )
    own = torch.eye(classes, dtype=torch.bool, device=logits.device)
    others = logits.unsqueeze(-2).masked_fill(own, -torch.inf).logsumexp(dim=-1)
    return logits - others
