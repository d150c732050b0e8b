"""What a recorder is asked to do beside recording."""

from __future__ import annotations

from dataclasses import dataclass

from captum_attngrad.capture._interventions import Intervention


@dataclass(frozen=True)
class CaptureOptions:
    """
    How the forward pass runs while attention is recorded.

    Args:
        value_gradients (bool): record the gradient of the values of fused calls too.
        lazy_graph (bool): leave what runs before the first attention call out of
            autograd's graph.
        allow_dropout (bool): whether attention dropout may be active.
        skip_unused_rows (bool): leave queries that nothing used out of the backward
            pass of fused calls, which can then run only once.
        intervention (Intervention, optional): what to do at the attention calls.
    """

    value_gradients: bool = True
    lazy_graph: bool = False
    allow_dropout: bool = False
    skip_unused_rows: bool = False
    intervention: Intervention | None = None


DEFAULT_OPTIONS = CaptureOptions()
