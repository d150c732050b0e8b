"""Which (query, key) pairs of an attention call are allowed.

A mask stays in the form in which the model gave it; rows of the boolean matrix are
made on demand, so that nobody has to hold a (queries x keys) tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Tensors with rows of a (queries x keys) matrix hold at most this many elements.
BLOCK = 1 << 22
# A score this far below the best one of its row has weight 0 in every dtype.
# Masks are written as -inf, finfo.min, -1e9 or -1e4; attention biases stay far above.
_FORBIDDEN_MARGIN = 5000.0
# No real score is as low as this (-inf, finfo.min and -1e9 are): forbidden on its own.
_NEVER = {torch.float16: -3e4}
_NEVER_OTHERWISE = -1e8


def forbidden_scores(scores: Tensor) -> Tensor:
    """True where an additive mask (or masked score) rules a pair out.

    A row in which nothing is allowed, as for a query that is padding, counts as such if
    it was filled with one number, or masked with -1e9 or less. Where -1e4 was added
    to all scores of a row, the model attends, and so the pairs count as allowed.

    Args:
        scores (Tensor): additive mask or masked pre-softmax scores, ``(..., keys)``.
    """
    scores = scores.detach()
    # Also where nothing is allowed in the whole row, as for a query that is padding.
    never = scores <= _NEVER.get(scores.dtype, _NEVER_OTHERWISE)
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    best = scores.amax(dim=-1, keepdim=True)
    # A row in which nothing is allowed has best = -inf, and -inf - -inf is nan.
    below = scores - best.clamp_min(torch.finfo(scores.dtype).min)
    never = never | (below <= -_FORBIDDEN_MARGIN)
    if scores.shape[-1] > 1:
        filled = (best <= -_FORBIDDEN_MARGIN) & (scores.amin(-1, keepdim=True) == best)
        never = never | filled
    return never


@dataclass(frozen=True)
class PairMask:
    """The allowed pairs of one fused call.

    Args:
        mask (Tensor or None): ``attn_mask`` as four dimensions, each of them possibly
            expanded: boolean (True = allowed) or additive.
        causal (bool): only keys up to the query's own position are allowed.
        query_length (int): number of queries.
        key_length (int): number of keys.
    """

    mask: Tensor | None
    causal: bool
    query_length: int
    key_length: int

    @property
    def unrestricted(self) -> bool:
        return self.mask is None and not self.causal

    def additive(self, rows: slice | Tensor, like: Tensor) -> Tensor | None:
        """What is added to the scores of some query rows; None if nothing is."""
        allowed = self._causal_rows(rows, like.device) if self.causal else None
        mask = self._mask_rows(rows)
        if mask is not None and mask.dtype == torch.bool:
            allowed = mask if allowed is None else allowed & mask
            mask = None
        if allowed is None:
            return mask
        bias = torch.zeros(allowed.shape, dtype=like.dtype, device=like.device)
        bias = bias.masked_fill(~allowed, -torch.inf)
        return bias if mask is None else bias + mask

    def allowed(self, rows: slice | Tensor, device: torch.device) -> Tensor | None:
        """Boolean ``(batch or 1, heads or 1, rows, keys)``; None if all are
        allowed."""
        causal = self._causal_rows(rows, device) if self.causal else None
        mask = self._mask_rows(rows)
        if mask is None:
            return causal
        if mask.dtype != torch.bool:
            mask = ~forbidden_scores(mask)
        return mask if causal is None else mask & causal

    def same_for_every_query(self) -> bool:
        """Whether all queries may see the same keys (a padding mask, most often)."""
        if self.causal:
            return False
        if self.mask is None or self.query_length == 1 or self.mask.stride(-2) == 0:
            return True
        # Reading the mask once is far cheaper than multiplying by it.
        return bool((self.mask == self.mask[..., :1, :]).all())

    def rows_with_keys(self, device: torch.device) -> Tensor | None:
        """Which queries may see any key at all, ``(batch or 1, heads or 1, queries)``;
        None: every query may."""
        if self.mask is None:
            return None
        # What is expanded is the same all over.
        mask = self.mask
        for dim in (0, 1):
            if mask.stride(dim) == 0:
                mask = mask.narrow(dim, 0, 1)
        narrow = replace(self, mask=mask)
        same = self.same_for_every_query()
        step = max(1, BLOCK // max(1, mask.shape[0] * mask.shape[1] * self.key_length))
        blocks = []
        for start in range(0, 1 if same else self.query_length, step):
            allowed = narrow.allowed(
                slice(0, 1) if same else slice(start, start + step), device
            )
            assert allowed is not None
            blocks.append(allowed.any(dim=-1))
        rows = torch.cat(blocks, dim=-1)
        if bool(rows.all()):
            return None
        return rows.expand(-1, -1, self.query_length) if same else rows

    def _causal_rows(self, rows: slice | Tensor, device: torch.device) -> Tensor:
        keys = torch.arange(self.key_length, device=device)
        queries = torch.arange(self.query_length, device=device)[rows]
        if isinstance(rows, Tensor):  # one row for each example
            queries = queries.view(-1, 1, 1, 1)
        else:
            queries = queries.view(1, 1, -1, 1)
        return keys <= queries

    def _mask_rows(self, rows: slice | Tensor) -> Tensor | None:
        if self.mask is None:
            return None
        if isinstance(rows, slice):
            return self.mask[:, :, rows]
        return select_rows(self.mask, rows)


def select_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """One query row per example: ``(batch, heads, queries, x)`` to ``(.., 1, x)``."""
    examples = torch.arange(rows.numel(), device=tensor.device)
    if tensor.shape[0] == 1 and rows.numel() > 1:
        tensor = tensor.expand(rows.numel(), *tensor.shape[1:])
    return tensor[examples, :, rows.to(tensor.device)].unsqueeze(2)
