"""Backward passes in which the positions of a causal decoder are kept apart.

In a causal decoder, position t reaches other positions through self-attention only,
and only later ones. Every path from what happens at position t to output t therefore
stays at position t. When self-attention passes no gradient from a position to another,
one backward pass of the sum of all outputs gives each position the gradient of its own
output.

:class:`IsolatePositions` prepares the self-attention that it sees for both kinds of
backward pass, without a change to the forward pass. It takes fused calls with a causal
mask and attention that is written out as matrix products. What it does not see stays as
it is, so the caller must check that the positions were kept apart.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_attngrad.capture._interventions import Intervention, Operation
from captum_attngrad.capture._masks import PairMask, forbidden_scores
from captum_attngrad.capture._sites import FusedSite, fused_site
from captum_attngrad.capture.calls import widened

_PRODUCTS = frozenset("matmul __matmul__ bmm".split())
_BLOCK = 1 << 22  # attention weights that are held at once


class Switch:
    """Which kind of backward pass is running."""

    def __init__(self) -> None:
        self.isolating = False

    @contextlib.contextmanager
    def isolated(self) -> Iterator[None]:
        self.isolating = True
        try:
            yield
        finally:
            self.isolating = False


class IsolatePositions(Intervention):
    """Prepares causal self-attention over ``length`` positions, see above."""

    sees_operations = True

    def __init__(self, switch: Switch, length: int) -> None:
        self._switch = switch
        self._length = length

    def prepared(self, site: FusedSite) -> FusedSite:
        query, key = site.query, site.key
        isolated = (
            torch.is_grad_enabled()
            and site.kernel is None
            and query.shape[-2] == key.shape[-2] == self._length
            and site.dropout == 0
            and (site.causal or _is_causal(site.mask))
        )
        return _IsolatedSite(**vars(site), switch=self._switch) if isolated else site

    def operation(self, operation: Operation) -> Any:
        func, args = operation.func, operation.args
        if not torch.is_grad_enabled():
            return operation.run()
        if func is F.scaled_dot_product_attention:  # outside the recorded layers
            site = fused_site(-1, *args, **operation.kwargs)
            isolated = site if site is None else self.prepared(site)
            if isolated is site or isolated is None:
                return operation.run()
            return isolated.attend(isolated.value)
        name = operation.name
        products = (name in _PRODUCTS and len(args) == 2) or (
            name == "baddbmm" and len(args) == 3
        )
        if not products or operation.kwargs:
            return operation.run()

        def product(left: Tensor, right: Tensor) -> Tensor:
            result: Tensor = operation.with_args(*args[:-2], left, right).run()
            return result

        return self._product(product, *args[-2:])

    def _product(self, product: Callable[..., Tensor], left: Any, right: Any) -> Tensor:
        """Scores ``q k^T``, or causal weights times values; other products as they
        are."""
        square = (self._length, self._length)
        if (
            not (isinstance(left, Tensor) and isinstance(right, Tensor))
            or left.dim() < 2
            or left.shape[:-2] != right.shape[:-2]
        ):
            return product(left, right)
        rows: type[torch.autograd.Function]
        if left.shape[-2:] == square and not left.detach().triu(1).any():
            rows = _DiagonalValues
        elif (left.shape[-2], right.shape[-1]) == square:
            rows = _DiagonalScores
        else:
            return product(left, right)
        gated = _Gate.apply(right, self._switch)  # type: ignore[no-untyped-call]
        result: Tensor = rows.apply(  # type: ignore[no-untyped-call]
            product(left, gated), left.detach(), right, self._switch
        )
        return result


@dataclass(frozen=True, kw_only=True)
class _IsolatedSite(FusedSite):
    """A site whose positions can be kept apart in a backward pass."""

    switch: Switch

    def attend(self, value: Tensor) -> Tensor:
        key, query, switch = self.key, self.query, self.switch
        gated_key, gated_value = (
            _Gate.apply(t, switch)  # type: ignore[no-untyped-call]
            for t in (key, value)
        )
        output = self._attend(gated_key, gated_value)
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        mask = None if self.mask is None else self.mask.detach()
        result: Tensor = _DiagonalAttention.apply(  # type: ignore[no-untyped-call]
            output, query.detach(), key, value, mask, self.causal, scale, switch
        )
        return result


def _is_causal(mask: Tensor | None) -> bool:
    """Whether no query may see a key after its own position."""
    if mask is None or mask.dim() < 2 or mask.shape[-1] != mask.shape[-2]:
        return False
    allowed = mask if mask.dtype == torch.bool else ~forbidden_scores(mask)
    return not bool(allowed.triu(1).any())


# Without set_materialize_grads(False) a score that no gradient comes from would look,
# in the layers below, like one whose gradient is 0.


class _Gate(torch.autograd.Function):
    """The same tensor; no gradient in passes that keep positions apart."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, switch: Switch) -> Tensor:
        ctx.switch = switch
        ctx.set_materialize_grads(False)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        return (None if ctx.switch.isolating else gradients[0]), None


class _DiagonalAttention(torch.autograd.Function):
    """The same output; in passes that keep positions apart, keys and values get the
    gradient that comes from the query at their own position."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
        scale: float,
        switch: Switch,
    ) -> Tensor:
        ctx.save_for_backward(output, query, key, value, mask)
        ctx.causal, ctx.scale, ctx.switch = causal, scale, switch
        ctx.set_materialize_grads(False)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        gradient = gradients[0]
        if gradient is None or not ctx.switch.isolating:
            return gradient, None, None, None, None, None, None, None
        output, query, key, value, mask = ctx.saved_tensors
        # O_t = sum_k A_tk v_k:  dv_t = A_tt dO_t,
        # dk_t = A_tt (dO_t . (v_t - O_t)) scale q_t
        own = _diagonal_weights(query, key, mask, ctx.causal, ctx.scale).to(value.dtype)
        value_gradient = own * gradient
        effect = (value_gradient * (value - output)).sum(dim=-1, keepdim=True)
        key_gradient = effect.to(query.dtype) * query * ctx.scale
        return gradient, None, key_gradient, value_gradient, None, None, None, None


def _diagonal_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, scale: float
) -> Tensor:
    """``A_tt``, ``(..., positions, 1)``, in blocks of queries."""
    query, key = widened(query), widened(key)
    length = query.shape[-2]
    if mask is not None:
        mask = mask.expand(*mask.shape[:-2], length, length)
        mask = mask.reshape((1,) * max(0, 4 - mask.dim()) + mask.shape)
    pairs = PairMask(mask, causal, length, length)
    step = max(1, _BLOCK // max(1, length * query[..., 0, 0].numel()))
    parts = []
    for start in range(0, length, step):
        rows = slice(start, start + step)
        scores = query[..., rows, :] @ key.transpose(-2, -1) * scale
        added = pairs.additive(rows, scores)
        if added is not None:
            scores = scores + added.reshape(added.shape[-max(scores.dim(), 2) :])
        weights = scores.softmax(dim=-1)
        parts.append(weights.diagonal(start, dim1=-2, dim2=-1))
    # A position that may attend to nothing has no weights.
    return torch.cat(parts, dim=-1).nan_to_num(0).unsqueeze(-1)


class _DiagonalScores(torch.autograd.Function):
    """``q k^T``: keys get the gradient from the query at their own position."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, query: Tensor, key: Tensor, switch: Switch
    ) -> Tensor:
        ctx.save_for_backward(query)
        ctx.switch = switch
        ctx.set_materialize_grads(False)
        return scores.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        gradient = gradients[0]
        if gradient is None or not ctx.switch.isolating:
            return gradient, None, None, None
        (query,) = ctx.saved_tensors
        own = gradient.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        return gradient, None, (own * query).transpose(-2, -1), None


class _DiagonalValues(torch.autograd.Function):
    """``A v``: values get the gradient from the query at their own position."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, weights: Tensor, value: Tensor, switch: Switch
    ) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.switch = switch
        ctx.set_materialize_grads(False)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        gradient = gradients[0]
        if gradient is None or not ctx.switch.isolating:
            return gradient, None, None, None
        (weights,) = ctx.saved_tensors
        own = weights.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        return gradient, None, own * gradient, None
