"""Kernels that hide their weights: flash attention and flex attention."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    LayerAttentionGradient,
    find_attention_layers,
)
from captum_attngrad.attr.path.integrated_attention_gradient import (
    IntegratedAttentionGradient,
)
from tests.architectures.families import EXAMPLES, FAMILIES, Family, Run
from tests.architectures.table import Table

pytest.importorskip("transformers")

from torch.nn.attention import flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers import modeling_flash_attention_utils as flash
from transformers.masking_utils import eager_mask

from tests.architectures import reference

COMBINATIONS = list(itertools.product((False, True), repeat=2))
reference.register()


class _Opaque(torch.autograd.Function):
    """Attention of one sequence as a compiled kernel looks from outside."""

    @staticmethod
    def forward(ctx: Any, *tensors: Any) -> Tensor:
        q, k, v, allowed, scale, softcap = tensors
        ctx.save_for_backward(q, k, v)
        ctx.options = allowed, scale, softcap
        with torch._C.DisableTorchFunction():
            return _attend(q, k, v, allowed, scale, softcap)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with torch._C.DisableTorchFunction(), torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in ctx.saved_tensors]
            output = _attend(*leaves, *ctx.options)
            return *torch.autograd.grad(output, leaves, gradients[0]), None, None, None


def _attend(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scale: float, softcap: float
) -> Tensor:
    """``(length, heads, channels)``, with grouped queries."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


class StandIn:
    """The functions of the flash attention package, with its calling convention.

    transformers' own code around them (masks, removing and putting back padding)
    runs as it is.
    """

    def __init__(self) -> None:
        self.calls = 0

    def flash(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        causal: bool = False,
        softmax_scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        **options: Any,
    ) -> Tensor:
        return torch.stack(
            [
                self._one(*one, causal, softmax_scale, window_size, softcap)
                for one in zip(q, k, v, strict=True)
            ]
        )

    def varlen(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        causal: bool = False,
        softmax_scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        **options: Any,
    ) -> Tensor:
        parts = []
        for i in range(len(cu_seqlens_q) - 1):
            queries = slice(int(cu_seqlens_q[i]), int(cu_seqlens_q[i + 1]))
            keys = slice(int(cu_seqlens_k[i]), int(cu_seqlens_k[i + 1]))
            one = (q[queries], k[keys], v[keys])
            parts.append(self._one(*one, causal, softmax_scale, window_size, softcap))
        return torch.cat(parts)

    def _one(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        causal: bool,
        scale: float | None,
        window: tuple[int, int],
        softcap: float,
    ) -> Tensor:
        self.calls += 1
        places = torch.arange(len(q)).unsqueeze(1) + len(k) - len(q)
        distance = torch.arange(len(k)) - places
        allowed = torch.ones(len(q), len(k), dtype=torch.bool)
        if causal:
            allowed &= distance <= 0
        if window[0] >= 0:
            allowed &= (distance >= -window[0]) & (distance <= window[1])
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return _Opaque.apply(q, k, v, allowed, scale, softcap)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    kernel = StandIn()
    functions = (
        kernel.flash,
        kernel.varlen,
        None,
        flash._pad_input,
        flash._unpad_input,
    )
    monkeypatch.setattr(flash, "_loaded_implementation", None)
    monkeypatch.setattr(flash, "_lazy_imports", lambda *_, **__: functions)
    return kernel


def _mask_without_padded_queries(**options: Any) -> Tensor | None:
    """What flash attention computes: queries that are padding are left out."""
    mask = eager_mask(**{**options, "allow_is_bidirectional_skip": False})
    padding = options.get("attention_mask")
    if padding is not None:
        kept = padding[:, -options["q_length"] :].bool()[:, None, :, None]
        mask = mask.masked_fill(~kept, torch.finfo(mask.dtype).min)
    return mask


AttentionInterface.register("materialised_unpadded", reference.attend)
AttentionMaskInterface.register("materialised_unpadded", _mask_without_padded_queries)


def with_attention(family: Family, name: str) -> Run:
    """Built with eager attention and then told otherwise: the package is not here."""
    run = family.build("eager")
    for module in run.modules():
        if hasattr(module, "config"):
            module.config._attn_implementation_internal = name
    return run


def check(
    family: Family,
    kernel: str,
    truth: dict[str, list[reference.Pairs]],
    run: Run,
    arguments: list[Any],
    table: Table,
    remark: str,
) -> None:
    inputs, *rest = arguments
    additional = tuple(rest)
    for group in family.layers:
        modules = run.attention_modules(group)
        calls = [truth[name] for name in run.attention_names(group)]

        def compare(got: Tensor, expected: Tensor, group: str = group) -> None:
            table.compare(
                family.name, kernel, got, expected, layers=group, remark=remark
            )

        for multiply, center in COMBINATIONS:
            options = {"multiply_by_attention": multiply, "center": center}
            expected = [
                torch.cat([call.scores(multiply, center) for call in module], dim=2)
                for module in calls
            ]
            total = sum(pairs.sum(dim=1) for pairs in expected)
            method = AttentionGradient(run, modules, **options)
            compare(method.attribute(inputs, 1, additional), total.sum(dim=1))
            table.proved(family.name, kernel, method, inputs, additional)
            for query in (1, torch.tensor([2, 1, 3])):
                got = method.attribute(inputs, 1, additional, query=query)
                compare(got, total[torch.arange(EXAMPLES), query])
            maps = LayerAttentionGradient(run, modules, **options).attribute(
                inputs, 1, additional
            )
            for got, want in zip(maps, expected, strict=True):
                compare(got, want)


FLASH = ("BERT", "ModernBERT", "GPT-2", "Llama", "Gemma2", "Mistral", "BART", "ViT")


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name in FLASH], ids=str)
def test_flash_attention(
    family: Family, padded: bool, stand_in: StandIn, table: Table
) -> None:
    if padded and not family.mask:
        pytest.skip("no padding in this family")
    arguments = family.arguments(padded)
    materialised = family.build("materialised_unpadded")
    truth = reference.materialised(
        materialised.model, lambda: materialised(*arguments)[:, 1]
    )
    run = with_attention(family, "flash_attention_2")
    found = find_attention_layers(run, *arguments)
    assert {info.kind for info in found} == {"attention kernel"}
    assert stand_in.calls
    torch.testing.assert_close(run(*arguments), materialised(*arguments))
    remark = "kernel replaced by a stand-in, as it needs a GPU"
    check(family, "flash_attention_2", truth, run, arguments, table, remark)


FLEX = ("BERT", "Llama", "Gemma2")


@pytest.fixture
def flex_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch refuses flex attention with gradients on the CPU, where its plain
    (uncompiled) implementation has them nevertheless."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)


@pytest.mark.usefixtures("flex_on_the_cpu")
@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name in FLEX], ids=str)
def test_flex_attention(family: Family, table: Table) -> None:
    arguments = family.arguments(padded=True)
    materialised = family.build(reference.NAME)
    truth = reference.materialised(
        materialised.model, lambda: materialised(*arguments)[:, 1]
    )
    run = with_attention(family, "flex_attention")
    found = find_attention_layers(run, *arguments)
    assert {info.kind for info in found} == {"attention kernel"}
    remark = "uncompiled, on the CPU"
    check(family, "flex_attention", truth, run, arguments, table, remark)


def test_flex_attention_called_directly(flex_on_the_cpu: None) -> None:
    """Hand-written, with a score modification and a block mask, returning the
    log-sum-exp, which is not taken for weights."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(8, 24)
            self.bias = nn.Parameter(torch.randn(2, 6, 6))
            self.compiled = torch.compile(flex_attention.flex_attention)

        def forward(self, x: Tensor, materialise: bool = False) -> Tensor:
            q, k, v = (
                t.unflatten(2, (2, 4)).transpose(1, 2)
                for t in self.project(x).chunk(3, dim=-1)
            )
            if materialise:
                mask = torch.ones(6, 6, dtype=torch.bool).tril()
                mask = torch.zeros(6, 6, dtype=x.dtype).masked_fill(~mask, -1e30)
                output, _ = reference.attend(
                    self, q, k, v, mask, position_bias=self.bias
                )
                return output.tanh().sum((1, 2, 3))
            output, aux = self.compiled(
                q,
                k,
                v,
                score_mod=lambda score, b, h, q, k: score + self.bias[h, q, k],
                block_mask=flex_attention.create_block_mask(
                    lambda b, h, q, k: q >= k, None, None, 6, 6, device="cpu"
                ),
                return_aux=flex_attention.AuxRequest(lse=True),
            )
            assert aux.lse.shape == q.shape[:3]
            return output.tanh().sum((1, 2, 3))

    model = Model().double().eval()
    x = torch.randn(EXAMPLES, 6, 8, dtype=torch.float64)
    ((call,),) = reference.materialised(model, lambda: model(x, True)).values()
    for multiply, center in COMBINATIONS:
        options = {"multiply_by_attention": multiply, "center": center}
        got = LayerAttentionGradient(model, model, **options).attribute(x)
        torch.testing.assert_close(got, call.scores(multiply, center))
        sums = AttentionGradient(model, model, **options).attribute(x)
        torch.testing.assert_close(sums, call.scores(multiply, center).sum((1, 2)))


def test_flex_attention_on_the_cpu_is_refused_by_torch() -> None:
    family = next(f for f in FAMILIES if f.name == "BERT")
    run = with_attention(family, "flex_attention")
    inputs, mask = family.arguments(padded=False)
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        AttentionGradient(run).attribute(inputs, 1, mask)


def _registered(name: str, function: Any) -> Run:
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, eager_mask)
    family = next(f for f in FAMILIES if f.name == "BERT")
    return with_attention(family, name)


def _opaque(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    temperature: float = 1.0,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """A kernel that hands over its log-sum-exp where others hand over weights."""
    everything = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool)
    scale = options["scaling"] * temperature
    outputs = [
        _Opaque.apply(*(t.transpose(0, 1) for t in one), everything, scale, 0.0)
        for one in zip(query, key, value, strict=True)
    ]
    return torch.stack(outputs), torch.zeros(query.shape[:3])


def test_a_kernel_of_the_users_own() -> None:
    run = _registered("own", _opaque)
    inputs, mask = run.family.arguments(padded=False)
    (kind,) = {info.kind for info in find_attention_layers(run, inputs, mask)}
    assert kind == "attention kernel"
    expected = AttentionGradient(run.family.build("sdpa")).attribute(inputs, 1, mask)
    got = AttentionGradient(run).attribute(inputs, 1, mask)
    torch.testing.assert_close(got, expected)
    assert AttentionInterface()["own"] is _opaque  # nothing stays wrapped


def test_a_kernel_that_does_something_else() -> None:
    def warmer(*args: Any, **options: Any) -> Any:
        return _opaque(*args, temperature=0.5, **options)

    run = _registered("warmer", warmer)
    inputs, mask = run.family.arguments(padded=False)
    with pytest.raises(
        NotImplementedError,
        match=r"'warmer' of layer 'model\.encoder\.layer\.0\.attention\.self'",
    ):
        AttentionGradient(run).attribute(inputs, 1, mask)
    assert AttentionInterface()["warmer"] is warmer


def test_a_kernel_without_a_backward_pass() -> None:
    def forward_only(*args: Any, **options: Any) -> Any:
        with torch.no_grad():
            return _opaque(*args, **options)

    run = _registered("forward_only", forward_only)
    inputs, mask = run.family.arguments(padded=False)
    with pytest.raises(RuntimeError, match=r"'forward_only' of layer .* no backward"):
        AttentionGradient(run).attribute(inputs, 1, mask)


def test_a_mask_that_cannot_be_read() -> None:
    def odd(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **o: Any) -> Any:
        return _opaque(module, q, k, v, None, **o)

    run = _registered("odd", odd)
    AttentionMaskInterface.register("odd", lambda **_: "everything")
    inputs, mask = run.family.arguments(padded=False)
    with pytest.raises(NotImplementedError, match=r"layer .*mask of\s+type str"):
        AttentionGradient(run).attribute(inputs, 1, mask)


@pytest.mark.parametrize("scale", ["together", "one"])
def test_a_kernel_whose_weights_are_scaled(scale: str) -> None:
    run = _registered("own", _opaque)
    inputs, mask = run.family.arguments(padded=False)
    expected, got = (
        IntegratedAttentionGradient(model, scale=scale).attribute(
            inputs, 1, mask, n_steps=3
        )
        for model in (run.family.build("sdpa"), run)
    )
    torch.testing.assert_close(got, expected)
