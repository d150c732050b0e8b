"""One attention call of a forward pass, and the exact gradient of its weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_attngrad._torch import version_of
from captum_attngrad.capture._layout.layout import Layout
from captum_attngrad.capture._layout.weighing import Role, Tile
from captum_attngrad.capture._masks import PairMask, select_rows
from captum_attngrad.capture._sites import FusedSite
from captum_attngrad.capture.keys import Keys

Rows = slice | Tensor
ALL_ROWS = slice(None)


class AttentionCall(ABC):
    r"""
    One attention call that ran while :class:`capture_attention` was recording.

    All tensors have the layout ``(batch, heads, queries, keys)``, whatever layout the
    model works in.

    Attributes:
        layer (str): name of the innermost module in which the call was made.
        kind (str): ``"scaled_dot_product_attention"`` or ``"softmax"``.
        batch_size (int): number of examples.
        heads (int): number of attention heads.
        query_length (int): number of queries.
        key_length (int): number of keys.
        keys_are (Keys): what the keys stand for, as far as it was proved.
    """

    kind: str

    def __init__(self, layer: str, scopes: tuple[int, ...], site_index: int) -> None:
        self.layer = layer
        self.scopes = scopes  # which of the recorded layers the call was made in
        self.site_index = site_index  # among the sites of its forward pass
        self.batch_size = 0
        self.heads = 0
        self.query_length = 0
        self.key_length = 0
        self.keys_are = Keys()
        self.layout: Layout
        self._gradients: tuple[Tensor, ...] | None = None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(layer={self.layer!r}, kind={self.kind!r}, "
            f"heads={self.heads}, queries={self.query_length}, keys={self.key_length})"
        )

    @property
    @abstractmethod
    def tiles(self) -> list[Tile]:
        """The dimensions of the weights in the model's own layout, cut where their
        roles change."""

    @abstractmethod
    def arrange(self, layout: Layout, examples: int) -> None:
        """Set the layout, once it is known."""

    @property
    @abstractmethod
    def sources(self) -> tuple[Any, ...]:
        """What to differentiate the score by, for :func:`torch.autograd.grad`."""

    @property
    @abstractmethod
    def query_dim(self) -> int | None:
        """Which dimension of the gradient by the first source holds the queries; None:
        there is one query and no dimension for it."""

    @abstractmethod
    def weights(self, rows: Rows = ALL_ROWS) -> Tensor:
        r"""
        The attention weights of this call.

        Args:
            rows (slice or Tensor, optional): query rows: a slice, or one row index
                for each example (shape ``(batch,)``).
                Default: all rows

        Returns:
            *Tensor* ``(batch, heads, queries, keys)``, detached; float32 where the
            model works in half precision. Pairs that the mask forbids are exactly 0.
        """

    @abstractmethod
    def gradient(self, rows: Rows = ALL_ROWS) -> Tensor:
        r"""
        The gradient of the score with respect to the attention weights.

        Available after :meth:`AttentionRecord.compute_gradients`.

        Args:
            rows (slice or Tensor, optional): as for :meth:`weights`.

        Returns:
            *Tensor* ``(batch, heads, queries, keys)``; float32 where the model works
            in half precision. Pairs that the mask forbids are exactly 0.

        Raises:
            RuntimeError: if no gradients have been computed yet.
        """

    @abstractmethod
    def allowed(self, rows: Rows = ALL_ROWS) -> Tensor | None:
        r"""
        Which (query, key) pairs the mask allows.

        Args:
            rows (slice or Tensor, optional): as for :meth:`weights`.

        Returns:
            *Tensor* of booleans, ``(batch or 1, heads or 1, queries, keys)``, or None
            where every pair is allowed.
        """

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype: ...

    @property
    def on_path(self) -> bool:
        """Whether the score depends on this call (known once gradients are there)."""
        return self._gradients is not None

    def _require_gradients(self) -> tuple[Tensor, ...]:
        if self._gradients is None:
            raise RuntimeError(
                f"The attention weights of layer {self.layer!r} have no gradient: "
                "either compute_gradients(score) has not been called, or the score "
                "does not depend on them."
            )
        return self._gradients

    def set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Store what autograd gave for :attr:`sources`."""
        present = tuple(gradient for gradient in gradients if gradient is not None)
        complete = bool(present) and len(present) == len(gradients)
        self._gradients = present if complete else None


class FusedCall(AttentionCall):
    """A call of ``scaled_dot_product_attention``: the weights were never built.

    With ``O = A v`` the gradient is ``dA = dO v^T``, so all that
    autograd must give is ``dO`` (and ``dv`` where a reduction can use it).
    """

    kind = "scaled_dot_product_attention"
    groups = 1  # query heads that share one key and value head in the model's tensors

    def __init__(
        self,
        layer: str,
        scopes: tuple[int, ...],
        site: FusedSite,
        output: Tensor,
        sources: tuple[Any, ...],
    ) -> None:
        super().__init__(layer, scopes, site.index)
        tensors = (site.query, site.key, site.value, output)
        self._raw = tuple(t.detach() for t in tensors)
        self._raw_mask = None if site.mask is None else site.mask.detach()
        self._versions = tuple(version_of(t) for t in self._raw)
        self._causal = site.causal
        channels = site.query.shape[-1]
        self.scale = 1 / math.sqrt(channels) if site.scale is None else site.scale
        self._sources = sources
        self.query_length = site.query.shape[-2]
        self.key_length = site.key.shape[-2]

    @property
    def sources(self) -> tuple[Any, ...]:
        return self._sources

    @property
    def query_dim(self) -> int | None:
        return -2

    @property
    def device(self) -> torch.device:
        return self._raw[0].device

    @property
    def dtype(self) -> torch.dtype:
        return self._raw[0].dtype

    @property
    def tiles(self) -> list[Tile]:
        sizes = [n for n in self.lead_shape if n != 1]
        tiles = [Tile(0, n, Role.BATCH) for n in sizes]
        tiles.append(Tile(0, self.query_length, Role.UNSHARED))
        return [*tiles, Tile(0, self.key_length, Role.KEYS)]

    @property
    def lead_shape(self) -> tuple[int, ...]:
        """The dimensions before queries and channels, as the model has them."""
        return tuple(self._raw[0].shape[:-2])

    def arrange(self, layout: Layout, examples: int) -> None:
        self.batch_size = examples
        self.layout = layout
        self.query, self.key, self.value, self._output = (
            self._four_dimensional(t) for t in self._raw
        )
        self.heads = self.query.shape[1]
        mask = self._raw_mask
        if mask is not None:
            if self._is_plain:
                mask = mask.reshape((1,) * (4 - mask.dim()) + mask.shape)
                mask = mask.expand(-1, -1, self.query_length, self.key_length)
            else:  # as the call saw it, then arranged like the query
                lead = self.lead_shape
                mask = mask.expand(*lead, self.query_length, self.key_length)
                mask = self._four_dimensional(mask)
        self.pairs = PairMask(mask, self._causal, self.query_length, self.key_length)

    @property
    def _is_plain(self) -> bool:
        """Whether the call itself works on ``(batch, heads, length, channels)``."""
        first = self.layout.examples in (0, None)
        return first and self.lead_shape == (self.batch_size, self.heads)

    def _four_dimensional(self, tensor: Tensor) -> Tensor:
        lead = [n for n in tensor.shape[:-2] if n != 1]
        tensor = tensor.reshape(*lead, *tensor.shape[-2:])
        return self.layout.lead_arranged(tensor, self.batch_size)

    def as_called(self, tensor: Tensor) -> Tensor:
        """``(batch, heads, length, channels)`` in the model's own layout."""
        lead = self.lead_shape
        sizes = [n for n in lead if n != 1]
        tensor = self.layout.lead_restored(tensor, sizes)
        return tensor.reshape(*lead, *tensor.shape[-2:])

    def _check_unchanged(self, *which: int) -> None:
        for index in which:
            if version_of(self._raw[index]) != self._versions[index]:
                name = ("query", "key", "value", "output")[index]
                raise RuntimeError(
                    f"The {name} of the attention call in layer {self.layer!r} was "
                    "changed in place after the call, so its attention weights can "
                    "no longer be computed. Use the out-of-place operation instead."
                )

    @property
    def output(self) -> Tensor:
        """``O = A v``, ``(batch, heads, queries, value channels)``."""
        if version_of(self._raw[3]) != self._versions[3]:
            # The model changed the output in place: compute it again.
            self._check_unchanged(0, 1, 2)
            self._output = self.attend(self.value)
            self._raw = (*self._raw[:3], self._output)
            self._versions = (*self._versions[:3], version_of(self._output))
        return self._output

    def attend(self, value: Tensor) -> Tensor:
        """The output of the same call for other values, in their dtype."""
        self._check_unchanged(0, 1)
        return _attend(
            self.query, self.key, value, self.pairs.mask, self.pairs.causal, self.scale
        )

    def attend_as_called(self, value: Tensor) -> Tensor:
        """The same, with everything in the model's own layout."""
        self._check_unchanged(0, 1)
        query, key = self._raw[:2]
        return _attend(query, key, value, self._raw_mask, self._causal, self.scale)

    @property
    def output_gradient(self) -> Tensor:
        """``dO``, ``(batch, heads, queries, value channels)``."""
        return self._four_dimensional(self._require_gradients()[0])

    @property
    def value_gradient(self) -> Tensor:
        """``dv`` through this call, ``(batch, heads, keys, value channels)``."""
        gradients = self._require_gradients()
        if len(gradients) < 2:
            raise RuntimeError("The value gradient was not recorded for this call.")
        return self._four_dimensional(gradients[1])

    def allowed(self, rows: Rows = ALL_ROWS) -> Tensor | None:
        return self.pairs.allowed(rows, self.device)

    def weights(self, rows: Rows = ALL_ROWS) -> Tensor:
        self._check_unchanged(0, 1)
        query = widened(self._query_rows(self.query, rows))
        scores = query @ widened(self.key).transpose(-2, -1) * self.scale
        additive = self.pairs.additive(rows, scores)
        if additive is not None:
            scores = scores + additive
        return self._clear(scores.softmax(dim=-1), rows)

    def gradient(self, rows: Rows = ALL_ROWS) -> Tensor:
        self._check_unchanged(2)
        # Under autocast the call works in a smaller dtype than its arguments have.
        value = widened(self.value)
        output_gradient = self._query_rows(self.output_gradient, rows).to(value.dtype)
        return self._clear(output_gradient @ value.transpose(-2, -1), rows)

    @staticmethod
    def _query_rows(tensor: Tensor, rows: Rows) -> Tensor:
        return (
            tensor[:, :, rows] if isinstance(rows, slice) else select_rows(tensor, rows)
        )

    def _clear(self, pairs: Tensor, rows: Rows) -> Tensor:
        allowed = self.allowed(rows)
        return pairs if allowed is None else pairs.masked_fill(~allowed, 0)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
) -> Tensor:
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(value.dtype)
    return torch.nn.functional.scaled_dot_product_attention(
        query.to(value.dtype),
        key.to(value.dtype),
        value,
        attn_mask=mask,
        is_causal=causal,
        scale=scale,
    )


def widened(tensor: Tensor) -> Tensor:
    """Half precision in float32: the scores are sums of many small terms."""
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    return tensor
