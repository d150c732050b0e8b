"""The table of what was checked, as far as it was measured in this run."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


@dataclass
class _Row:
    layers: set[str] = field(default_factory=set)
    remark: str = ""
    errors: dict[torch.dtype, float] = field(default_factory=dict)
    comparisons: int = 0
    proved_by: set[str] = field(default_factory=set)


class Table:
    """Compares results with the truth and keeps the largest error of each kind."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], _Row] = {}

    def compare(
        self,
        architecture: str,
        implementation: str,
        got: Tensor,
        expected: Tensor,
        *,
        layers: str = "self",
        remark: str = "",
        library: str = "transformers",
    ) -> None:
        """Assert that two tensors agree, relative to the largest expected entry."""
        assert got.shape == expected.shape, (got.shape, expected.shape)
        assert got.dtype == expected.dtype, (got.dtype, expected.dtype)
        size = expected.abs().max().item()
        assert size > 1e-6, "nothing to compare: everything that is expected is 0"
        error = (got - expected).abs().max().item() / size
        assert error < TOLERANCE[got.dtype], error
        forbidden = expected == 0
        assert bool((got[forbidden] == 0).all()), "a forbidden pair is not exactly 0"
        row = self._rows.setdefault((library, architecture, implementation), _Row())
        row.layers.add(layers)
        row.remark = remark
        row.comparisons += 1
        row.errors[got.dtype] = max(error, row.errors.get(got.dtype, 0.0))

    def proved(
        self,
        architecture: str,
        implementation: str,
        method: Any,
        inputs: Any,
        additional: Any = None,
        *,
        library: str = "transformers",
    ) -> None:
        """Note how the layouts of a method's attention calls are known."""
        record = method._runner().record(inputs, additional)
        row = self._rows.setdefault((library, architecture, implementation), _Row())
        row.proved_by |= {call.keys_are.proved_by for call in record}

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, delete=False, encoding="utf-8"
        ) as file:
            file.write(self._text())
        os.replace(file.name, path)

    def _text(self) -> str:
        lines = [
            "# Architectures that were checked",
            "",
            "Written by the tests in `tests/architectures`; do not edit.",
            "",
            "On tiny random models, `AttentionGradient` and `LayerAttentionGradient`",
            "(plain, multiplied by the attention, centred, and both; sums over the",
            "queries and single query rows; with and without padding) were compared",
            "with plain autograd on attention weights that were kept in memory. The",
            "largest difference, relative to the largest entry. 'Proved by' is how it",
            "is known which number belongs to which example, head, query and key:",
            "",
            "| library | architecture | attention | layers | float64 | float32 "
            "| comparisons | proved by | remark |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for (library, architecture, implementation), row in self._rows.items():
            lines.append(
                f"| {library} | {architecture} | {implementation} "
                f"| {', '.join(sorted(row.layers))} "
                f"| {_bound(row.errors.get(torch.float64))} "
                f"| {_bound(row.errors.get(torch.float32))} "
                f"| {row.comparisons} | {', '.join(sorted(row.proved_by)) or '–'} "
                f"| {row.remark} |"
            )
        return "\n".join([*lines, *_REFUSED]) + "\n"


_REFUSED = """
Refused, with an error that names the layer:

- Longformer and LED: overlapping chunks of weights are put together by operations that
  cannot be followed.
- Swin, SAM's windows, TimeSformer, LongT5's local attention, PatchTST: windows, frames,
  blocks or channels have keys of their own, so there is no score for each token.
  `LayerAttentionGradient` returns their maps, which are exact (PatchTST's over channels
  are refused as well).
- BART's classifier and other encoder-decoders with `layer=None`: encoder and decoder
  attend to different keys. The error lists them; choose one with `layer=[...]`.
- Funnel and Perceiver with `layer=None`: pooled or latent keys.
""".splitlines()


def _bound(error: float | None) -> str:
    """The next power of ten, so that the table does not change with the machine."""
    if error is None:
        return "–"
    if error == 0:
        return "0"
    return f"< 1e{math.floor(math.log10(error)) + 1}"
