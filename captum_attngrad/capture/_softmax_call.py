"""An attention call that the model has written out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._anchors import version_of
from captum_attngrad.capture._masks import select_rows
from captum_attngrad.capture.calls import ALL_ROWS, AttentionCall, Rows, widened


class SoftmaxCall(AttentionCall):
    """Attention written out: the weights are the result of a softmax.

    The gradient is taken at the softmax itself, so that a later dropout, cast,
    reshape or change in place does not matter. Entries of the softmax that weigh no
    value (an attention sink) are no keys: the weights then sum to less than one.
    """

    kind = "softmax"

    def __init__(
        self,
        layer: str,
        scopes: tuple[int, ...],
        weights: Tensor,
        dim: int,
        forbidden: Tensor,
        source: Any,
    ) -> None:
        super().__init__(layer, scopes)
        self._raw = weights.detach()
        self._version = version_of(self._raw)
        self._forbidden = forbidden
        self._dim = dim % weights.dim()
        self._source = source
        self._permutation: tuple[int, ...] = ()
        self.keys = range(weights.shape[self._dim])  # the entries that weigh values

    @property
    def sources(self) -> tuple[Any, ...]:
        return () if self._source is None else (self._source,)

    @property
    def query_dim(self) -> int | None:
        return self._permutation[-2] if len(self._permutation) > 2 else None

    @property
    def device(self) -> torch.device:
        return self._raw.device

    @property
    def dtype(self) -> torch.dtype:
        return self._raw.dtype

    @property
    def batch_like_sizes(self) -> tuple[int, ...]:
        rest = [n for i, n in enumerate(self._raw.shape) if i != self._dim]
        return tuple(rest) or (1,)

    @property
    def may_fold(self) -> bool:
        return self._raw.dim() == 3

    def arrange(self, batch_dim: int, fold: int) -> None:
        shape = self._raw.shape
        self.key_length = len(self.keys)
        rest = [i for i in range(len(shape)) if i != self._dim]
        if not rest:  # one distribution over the keys, no batch at all
            self._permutation = (self._dim,)
            self._shape: tuple[int, ...] = (1, 1, 1, self.key_length)
        else:
            batch = rest.pop(batch_dim)
            self._permutation = (batch, *rest, self._dim)
            queries = shape[rest[-1]] if rest else 1
            self._shape = (shape[batch] // fold, -1, queries, self.key_length)
        self.batch_size = self._shape[0]
        self.query_length = self._shape[2]
        self.heads = self._arranged(self._raw).shape[1]

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
        if self.key_length < tensor.shape[self._dim]:
            tensor = tensor.narrow(self._dim, self.keys.start, self.key_length)
        tensor = tensor.permute(self._permutation)
        if -1 in self._shape:
            # An empty dimension would leave -1 undetermined.
            known = math.prod(n for n in self._shape if n != -1)
            heads = tensor.numel() // known if known else 1
            return tensor.reshape([heads if n == -1 else n for n in self._shape])
        return tensor.reshape(self._shape)

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
