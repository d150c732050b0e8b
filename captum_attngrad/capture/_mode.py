"""The torch function mode that sees attention calls as they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_attngrad.capture._masks import forbidden_scores
from captum_attngrad.capture._multihead import open_multi_head_attention_forward
from captum_attngrad.capture._written_out import SOFTMAX, Softmax, WrittenOutAttention
from captum_attngrad.capture.calls import (
    AttentionCall,
    FusedCall,
    SoftmaxCall,
    gradient_source,
)


class AttentionMode(TorchFunctionMode):
    """Sees the operations of one thread while one of the recorded layers runs.

    Args:
        add (Callable): takes each finished :class:`AttentionCall`.
        where (Callable): names the innermost module that is running, and which of
            the recorded layers it is in.
        value_gradients (bool): whether fused calls record the gradient of ``v`` too.
        start_graph (bool): switch autograd on at the first attention call (the
            caller has switched it off for what comes before).
        allow_dropout (bool): whether attention dropout may be active.
    """

    def __init__(
        self,
        add: Callable[[AttentionCall], None],
        where: Callable[[], tuple[str, tuple[int, ...]]],
        value_gradients: bool = True,
        start_graph: bool = False,
        allow_dropout: bool = False,
    ) -> None:
        super().__init__()
        self._add = add
        self._where = where
        self._value_gradients = value_gradients
        self._start_graph = start_graph
        self._allow_dropout = allow_dropout
        self._written_out = WrittenOutAttention()

    def enter(self) -> None:
        """A recorded layer starts."""
        self.__enter__()  # type: ignore[no-untyped-call]

    def leave(self) -> None:
        """The outermost recorded layer has finished."""
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._written_out.clear()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            with self:
                return open_multi_head_attention_forward(*args, **kwargs)
        if getattr(func, "__name__", "") in SOFTMAX:
            return self._softmax(func, args, kwargs)
        result = func(*args, **kwargs)
        for softmax in self._written_out.see(func, args, kwargs, result):
            self._add_written_out(softmax)
        return result

    # -- scaled dot-product attention -------------------------------------------------

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if dropout_p > 0:
            self._refuse_dropout()
        if any(t.is_nested for t in (query, key, value)):
            raise NotImplementedError(
                f"Layer {self._where()[0]!r} calls scaled_dot_product_attention on "
                "nested tensors, which cannot be recorded. Pass padded tensors and a "
                "mask (nn.TransformerEncoder: enable_nested_tensor=False)."
            )
        if self._start_graph:
            torch.set_grad_enabled(True)
        if enable_gqa and key.shape[-3] != query.shape[-3]:
            # One key and value head per query head, so that each has its own scores.
            groups = query.shape[-3] // key.shape[-3]
            key = key.repeat_interleave(groups, dim=-3)
            value = value.repeat_interleave(groups, dim=-3)
        lead = torch.broadcast_shapes(*(t.shape[:-2] for t in (query, key, value)))
        query, key, value = (
            t if t.shape[:-2] == lead else t.expand(*lead, *t.shape[-2:])
            for t in (query, key, value)
        )
        sources: tuple[Any, ...] = ()
        value_sources: tuple[Any, ...] = ()
        if self._value_gradients and torch.is_grad_enabled():
            # A tensor that only this call uses: its gradient is dv *through* it.
            value = _own(value)
            value_sources = (gradient_source(value),)
        output = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attn_mask,
            dropout_p=dropout_p,
            is_causal=is_causal,
            scale=scale,
        )
        returned = output
        if torch.is_grad_enabled():
            output, returned = _anchored(output)
            sources = (gradient_source(output), *value_sources)
        self._add(
            FusedCall(
                *self._where(),
                query,
                key,
                value,
                attn_mask,
                is_causal,
                scale,
                output,
                sources,
            )
        )
        return returned

    # -- softmax written out ----------------------------------------------------------

    def _softmax(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        scores = args[0] if args else kwargs["input"]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if self._start_graph:
            torch.set_grad_enabled(True)
        weights = func(*args, **kwargs)
        if dim is None or not scores.dim() or isinstance(dim, str):
            return weights
        returned, source = weights, None
        if torch.is_grad_enabled():
            weights, returned = _anchored(weights)
            source = gradient_source(weights)
        softmax = Softmax(
            weights.detach(),
            dim % weights.dim(),
            scores.detach(),
            self._written_out.is_linear_feature(scores, dim),
            source,
        )
        self._written_out.started(returned, softmax)
        return returned

    def _add_written_out(self, softmax: Softmax) -> None:
        if softmax.dropped:
            self._refuse_dropout()
        assert softmax.scores is not None
        scores = softmax.scores.movedim(softmax.dim, -1)
        forbidden = forbidden_scores(scores).movedim(-1, softmax.dim)
        softmax.scores = None
        self._add(
            SoftmaxCall(
                *self._where(), softmax.weights, softmax.dim, forbidden, softmax.source
            )
        )

    def _refuse_dropout(self) -> None:
        if self._allow_dropout:
            return
        raise RuntimeError(
            f"Attention dropout is active in layer {self._where()[0]!r}: the attention "
            "weights that are explained would be random. Call model.eval() first."
        )


def _own(tensor: Tensor) -> Tensor:
    """A tensor with the same data that takes gradients and is used nowhere else."""
    if tensor.requires_grad:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_()


def _anchored(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """``(anchor, what the model gets)``: autograd can find the anchor's gradient also
    where nothing below it takes gradients (a frozen model)."""
    if tensor.requires_grad:
        return tensor, tensor
    anchor = tensor.detach().requires_grad_()
    # A copy, since a leaf (or a view of one) must not be changed in place.
    return anchor, anchor.clone()
