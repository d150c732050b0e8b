"""An attention call that the model has written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_attngrad._torch import version_of
from captum_attngrad.capture._layout.axes import Axis, axes_of
from captum_attngrad.capture._layout.layout import Layout
from captum_attngrad.capture._layout.weighing import Role, Tile, tiles_of
from captum_attngrad.capture._masks import select_rows
from captum_attngrad.capture.calls import ALL_ROWS, AttentionCall, Rows, widened


class SoftmaxCall(AttentionCall):
    """Attention written out: the weights are the result of a softmax.

    The gradient is taken at the softmax itself, so that a later dropout, cast,
    reshape or change in place does not matter. Entries of the softmax that weigh no
    value (an attention sink) do not count as keys, so the weights may sum to less than
    one.
    """

    kind = "softmax"

    def __init__(
        self,
        layer: str,
        scopes: tuple[int, ...],
        site_index: int,
        weights: Tensor,
        dim: int,
        forbidden: Tensor,
        source: Any,
        roles: dict[Axis, Role],
        selected: dict[int, set[int]],
    ) -> None:
        super().__init__(layer, scopes, site_index)
        self._raw = weights.detach()
        self._version = version_of(self._raw)
        self._forbidden = forbidden
        self._dim = dim % weights.dim()
        self._source = source
        self._roles = roles  # these two grow while values are weighed
        self._selected = selected
        self.keys = range(weights.shape[self._dim])  # the entries that weigh values

    @property
    def sources(self) -> tuple[Any, ...]:
        return () if self._source is None else (self._source,)

    @property
    def query_dim(self) -> int | None:
        queries = [self._tiles[i] for i in self.layout.queries]
        if not queries:
            return None
        whole = [
            dim
            for dim, axes in enumerate(axes_of(tuple(self._raw.shape)))
            if [a[:2] for a in axes] == [(queries[0].stride, queries[0].size)]
        ]
        if len(queries) > 1 or not whole:
            raise NotImplementedError(
                f"The attention weights of layer {self.layer!r} have their queries in "
                "several dimensions, or folded with the batch, of which single rows "
                "cannot be taken yet."
            )
        return whole[0]

    @property
    def device(self) -> torch.device:
        return self._raw.device

    @property
    def dtype(self) -> torch.dtype:
        return self._raw.dtype

    @property
    def tiles(self) -> list[Tile]:
        try:
            return tiles_of(
                tuple(self._raw.shape), self._dim, self._roles, self._selected
            )
        except ValueError as error:
            raise NotImplementedError(
                f"The attention weights of layer {self.layer!r}, of shape "
                f"{tuple(self._raw.shape)}, are reshaped before they weigh values in a "
                f"way that cannot be followed ({error}). Reshape queries and keys "
                "instead of weights."
            ) from error

    def arrange(self, layout: Layout, examples: int) -> None:
        self._tiles = self.tiles
        self.layout = layout
        self.key_length = len(self.keys)
        self.batch_size = examples
        arranged = self._arranged(self._raw)
        _, self.heads, self.query_length, _ = arranged.shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights, as the model has them."""
        return tuple(self._raw.shape)

    @property
    def as_written(self) -> Tensor:
        """The weights in the model's own layout."""
        self._check_unchanged()
        return self._raw

    def _check_unchanged(self) -> None:
        if version_of(self._raw) != self._version:
            raise RuntimeError(
                f"The attention weights of layer {self.layer!r} were changed in place "
                "after the softmax. Use the out-of-place operation instead."
            )

    def _arranged(self, tensor: Tensor) -> Tensor:
        tiles = self._tiles
        if self.key_length < tensor.shape[self._dim]:
            tensor = tensor.narrow(self._dim, self.keys.start, self.key_length)
            tiles = [
                replace(t, size=self.key_length) if t.role is Role.KEYS else t
                for t in tiles
            ]
        return self.layout.arranged(tensor, tiles, self.batch_size)

    def as_called(self, tensor: Tensor) -> Tensor:
        """``(batch, heads, queries, keys)`` in the model's own layout."""
        return self.layout.restored(tensor, self._tiles).reshape(self._raw.shape)

    def _rows(self, tensor: Tensor, rows: Rows) -> Tensor:
        tensor = self._arranged(tensor)
        return (
            tensor[:, :, rows] if isinstance(rows, slice) else select_rows(tensor, rows)
        )

    def allowed(self, rows: Rows = ALL_ROWS) -> Tensor | None:
        return ~self._rows(self._forbidden, rows)

    def weights(self, rows: Rows = ALL_ROWS) -> Tensor:
        self._check_unchanged()
        return widened(self._rows(self._raw.masked_fill(self._forbidden, 0), rows))

    def gradient(self, rows: Rows = ALL_ROWS) -> Tensor:
        (gradient,) = self._require_gradients()
        return widened(self._rows(gradient.masked_fill(self._forbidden, 0), rows))
