"""List the attention layers of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.nn import Module

from captum_attngrad.capture.context import finish_with_model
from captum_attngrad.capture.options import CaptureOptions
from captum_attngrad.capture.recorder import Recorder


class AttentionLayerInfo(NamedTuple):
    r"""
    What :func:`find_attention_layers` found in one module.

    Attributes:
        name (str): the module's name in the model (``model.get_submodule(name)``).
        module (torch.nn.Module): the module: what to pass as ``layer``.
        kind (str): ``"scaled_dot_product_attention"`` or ``"softmax"``.
        heads (int): number of attention heads.
        query_length (int): number of queries in the first call.
        key_length (int): number of keys in the first call.
        calls (int): number of attention calls in one forward pass.
    """

    name: str
    module: Module
    kind: str
    heads: int
    query_length: int
    key_length: int
    calls: int


class AttentionLayers(tuple[AttentionLayerInfo, ...]):
    """The attention layers of a model, in the order in which they run; prints as a
    table.

    Attributes:
        lost (tuple of (str, str)): layers with a softmax that weighs values after an
            operation that cannot be followed, and that operation. They are not
            part of any score.
    """

    lost: tuple[tuple[str, str], ...]

    def __new__(
        cls,
        layers: Iterable[AttentionLayerInfo],
        lost: Iterable[tuple[str, str]] = (),
    ) -> AttentionLayers:
        found = super().__new__(cls, tuple(layers))
        found.lost = tuple(lost)
        return found

    @property
    def modules(self) -> list[Module]:
        """What to pass as ``layer`` to explain with all of them."""
        return [layer.module for layer in self]

    def __str__(self) -> str:
        unseen = [
            f"not followed: {name or '(the model itself)'}, after {operation!r}"
            for name, operation in self.lost
        ]
        if not self:
            return "\n".join(["no attention found", *unseen])
        rows = [("layer", "kind", "heads", "queries x keys", "calls")]
        rows += [
            (
                layer.name or "(the model itself)",
                layer.kind,
                str(layer.heads),
                f"{layer.query_length} x {layer.key_length}",
                str(layer.calls),
            )
            for layer in self
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            ).rstrip()
            for row in rows
        ]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *unseen])

    __repr__ = __str__


def find_attention_layers(model: Module, *args: Any, **kwargs: Any) -> AttentionLayers:
    r"""
    Run a model once and list the modules that attend.

    Args:

        model (torch.nn.Module): the model.
        *args, **kwargs: what the model is called with.

    Returns:
        :class:`AttentionLayers`, a tuple of :class:`AttentionLayerInfo` in the order
        in which the modules run. Printing it gives a table; ``.modules`` is the list
        to pass as ``layer``; ``.lost`` names layers whose attention was seen and could
        not be followed.

    Examples::

        >>> print(find_attention_layers(model, input_ids))
        layer                           kind                          heads  ...
        ------------------------------------------------------------------------
        encoder.layers.0.self_attn      scaled_dot_product_attention  8      ...
    """
    if not isinstance(model, Module):
        raise TypeError(
            f"find_attention_layers needs a torch.nn.Module, got "
            f"{type(model).__name__}: {model!r:.80}."
        )
    options = CaptureOptions(value_gradients=False, allow_dropout=True)
    recorder = Recorder([model], model=model, options=options)
    with recorder, torch.no_grad():
        model(*args, **kwargs)
    found: dict[str, list[Any]] = {}
    for call in finish_with_model(recorder, None):
        found.setdefault(call.layer, []).append(call)
    modules = dict(model.named_modules())
    infos = [
        AttentionLayerInfo(
            name,
            modules[name],
            calls[0].kind,
            calls[0].heads,
            calls[0].query_length,
            calls[0].key_length,
            len(calls),
        )
        for name, calls in found.items()
    ]
    return AttentionLayers(infos, recorder.lost)
