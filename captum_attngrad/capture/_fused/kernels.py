"""Attention calls of kernels other than ``scaled_dot_product_attention``.

Only the arguments and the output of such a kernel (flex attention, the flash attention
package, a vendor's) are seen. That is enough for the gradient, ``dO v^T``.
Weights are computed anew, from what the call says of its mask and its scores, and are
checked against the output on some rows before they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._layout.layout import Layout
from captum_attngrad.capture._masks import BLOCK, PairMask
from captum_attngrad.capture._sites import FusedSite
from captum_attngrad.capture.calls import ALL_ROWS, FusedCall, Rows, widened

# Example, head, query and key, each (batch or 1, heads or 1, rows or 1, keys or 1).
Positions = tuple[Tensor, Tensor, Tensor, Tensor]

# The tolerance for agreement with the kernel's output, relative to its largest entry
# (float32 kernels may multiply in TensorFloat-32). Other weights are off by far more.
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-3}
_TOLERANCE_HALF = 5e-2


@dataclass(frozen=True)
class Kernel:
    """What the arguments of a call say about it.

    Args:
        name (str): what error messages call it.
        allowed (Callable, optional): which pairs at some positions are allowed.
        modify (Callable, optional): the scores (scaled products) at some positions,
            as they go into the softmax.
        sink (Tensor, optional): one score for each head that takes part in the
            softmax and has no value.
    """

    name: str
    allowed: Callable[[Positions], Tensor] | None = None
    modify: Callable[[Tensor, Positions], Tensor] | None = None
    sink: Tensor | None = None


@dataclass(frozen=True)
class RuleMask(PairMask):
    """Allowed pairs given by a function of their positions."""

    positions: Callable[[Rows], Positions]
    rule: Callable[[Positions], Tensor] | None

    @property
    def unrestricted(self) -> bool:
        return self.rule is None

    def same_for_every_query(self) -> bool:
        return self.rule is None

    def rows_with_keys(self, device: torch.device) -> Tensor | None:
        blocks = [self.allowed(rows, device) for rows in self.blocks()]
        found = [block.any(dim=-1) for block in blocks if block is not None]
        return torch.cat(found, dim=-1) if found else None

    def blocks(self) -> Iterator[slice]:
        """Some rows at a time."""
        batch, heads, _, _ = self.positions(slice(0, 0))
        step = max(1, BLOCK // max(1, len(batch) * heads.shape[1] * self.key_length))
        for start in range(0, self.query_length, step):
            yield slice(start, start + step)

    def _mask_rows(self, rows: Rows) -> Tensor | None:
        return None if self.rule is None else self.rule(self.positions(rows))


class KernelCall(FusedCall):
    """A call of a kernel of which only arguments and output are seen.

    Args:
        site (FusedSite): queries, keys and values ``(batch, heads, length, channels)``;
            keys and values may have fewer heads (grouped queries).
        output (Tensor): ``(batch, heads, queries, channels)``.
        sources: where autograd finds the gradients of the output and, if there is a
            second one, of the values.
        kernel (Kernel): mask and scores.
        check (bool): compare the weights with the output, which must be ``A v``.
    """

    kind = "attention kernel"
    pairs: RuleMask

    def __init__(
        self,
        layer: str,
        scopes: tuple[int, ...],
        site: FusedSite,
        output: Tensor,
        sources: tuple[Any, ...],
        kernel: Kernel,
        check: bool = True,
    ) -> None:
        groups = site.query.shape[1] // site.key.shape[1]
        if groups > 1:
            key, value = (
                t.detach().repeat_interleave(groups, dim=1)
                for t in (site.key, site.value)
            )
            site = replace(site, key=key, value=value)
            sources = sources[:1]  # the values' gradient is that of a whole group
        super().__init__(layer, scopes, site, output, sources)
        self.groups = groups
        self._kernel = kernel
        self._check = check

    def arrange(self, layout: Layout, examples: int) -> None:
        super().arrange(layout, examples)
        if not self._is_plain:
            raise NotImplementedError(
                f"The attention kernel {self._kernel.name!r} of layer {self.layer!r} "
                f"works on {tuple(self._raw[0].shape)}, which is not (batch, heads, "
                "queries, channels), so that its mask cannot be read."
            )
        self.pairs = RuleMask(
            None,
            False,
            self.query_length,
            self.key_length,
            self._positions,
            self._kernel.allowed,
        )
        if self._check:
            self._check_weights()

    def weights(self, rows: Rows = ALL_ROWS) -> Tensor:
        self._check_unchanged(0, 1)
        query = widened(self._query_rows(self.query, rows))
        scores = query @ widened(self.key).transpose(-2, -1) * self.scale
        if self._kernel.modify is not None:
            scores = self._kernel.modify(scores, self._positions(rows))
        additive = self.pairs.additive(rows, scores)
        if additive is not None:
            scores = scores + additive
        sink = self._kernel.sink
        if sink is not None:
            column = sink.detach().to(scores.dtype).view(1, -1, 1, 1)
            column = column.expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, column], dim=-1)
        return self._clear(scores.softmax(dim=-1)[..., : self.key_length], rows)

    def attend(self, value: Tensor) -> Tensor:
        """``A v`` for other values, in blocks of queries."""
        result: Tensor = _Attend.apply(value, self)  # type: ignore[no-untyped-call]
        return result

    @property
    def value_gradient(self) -> Tensor:
        if len(self._require_gradients()) == 2:
            return super().value_gradient
        return self.transposed(self.output_gradient)

    def transposed(self, channels: Tensor) -> Tensor:
        """``A^T x``, in blocks of queries."""
        total = torch.zeros_like(widened(self.value[..., :1]))
        for rows in self.pairs.blocks():
            weights = self.weights(rows)
            chunk = channels[:, :, rows].to(weights.dtype)
            total = total + weights.transpose(-2, -1) @ chunk
        return total

    def _positions(self, rows: Rows) -> Positions:
        def line(size: int, dim: int) -> Tensor:
            shape = [1, 1, 1, 1]
            shape[dim] = size
            return torch.arange(size, device=self.device).view(shape)

        queries = torch.arange(self.query_length, device=self.device)[rows]
        per_example = isinstance(rows, Tensor)
        return (
            line(self.batch_size, 0),
            line(self.heads, 1),
            queries.view((-1, 1, 1, 1) if per_example else (1, 1, -1, 1)),
            line(self.key_length, 3),
        )

    def _check_weights(self) -> None:
        """Some rows of ``A v`` must be rows of the output."""
        if self.query_length == 0 or self.key_length == 0:
            return
        steps = torch.linspace(0, self.query_length - 1, min(4, self.query_length))
        for row in steps.long().tolist():
            rows = slice(row, row + 1)
            expected = widened(self.output[:, :, rows])
            found = self.weights(rows).to(expected.dtype) @ widened(self.value)
            size = max(float(expected.abs().max()), float(self.value.abs().max()))
            tolerance = _TOLERANCE.get(self.dtype, _TOLERANCE_HALF)
            difference = float((found - expected).abs().max())
            if not difference <= tolerance * size:
                raise NotImplementedError(
                    f"The attention kernel {self._kernel.name!r} of layer "
                    f"{self.layer!r} attends in a way that cannot be read off its "
                    f"arguments (query row {row} of its output is off by "
                    f"{difference:.2g}), so its weights are unknown. Use another "
                    "attention implementation for the explanation (Hugging Face: "
                    "model.set_attn_implementation('sdpa') or 'eager')."
                )


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, call: KernelCall) -> Tensor:
        ctx.call = call
        blocks = [
            call.weights(rows).to(value.dtype) @ value for rows in call.pairs.blocks()
        ]
        return torch.cat(blocks, dim=2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.call.transposed(gradients[0]), None
