"""Fused attention: every score against autograd on materialised weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad import AttentionGradient, LayerAttentionGradient
from tests import reference

Attend = Callable[..., Tensor]
OPTIONS = list(itertools.product((False, True), repeat=2))


class Attention(nn.Module):
    """One attention call, by a given function."""

    def __init__(self, width: int, heads: int, key_heads: int, case: dict) -> None:
        super().__init__()
        self.heads, self.key_heads, self.case = heads, key_heads, case
        self.q = nn.Linear(width, 3 * heads)
        self.k = nn.Linear(width, 3 * key_heads)
        self.v = nn.Linear(width, 3 * key_heads)
        self.attend: Attend = self.fused

    def fused(self, q: Tensor, k: Tensor, v: Tensor, allowed, bias, scale) -> Tensor:
        options = {"scale": scale, "is_causal": self.case["causal"]}
        if self.key_heads != self.heads:
            options["enable_gqa"] = True
        if allowed is not None and bias is not None:
            allowed = bias.masked_fill(~allowed, -torch.inf)
        mask = bias if allowed is None else allowed
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=None if self.case["causal"] else mask, **options
        )

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        def split(t: Tensor, heads: int) -> Tensor:
            return t.view(t.shape[0], t.shape[1], heads, 3).transpose(1, 2)

        q = split(self.q(queries), self.heads)
        k = split(self.k(keys), self.key_heads)
        v = split(self.v(keys), self.key_heads)
        case = self.case
        allowed, bias = case["allowed"], case["bias"]
        if case["causal"] and self.attend != self.fused:
            allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        out = self.attend(q, k, v, allowed, bias, case["scale"])
        return out.transpose(1, 2).flatten(2)


class Model(nn.Module):
    """Two attention calls, the second on top of the first."""

    def __init__(self, heads: int, key_heads: int, case: dict) -> None:
        super().__init__()
        self.first = Attention(6, heads, key_heads, case)
        self.back = nn.Linear(3 * heads, 6)
        self.second = Attention(6, heads, key_heads, case)
        self.out = nn.Linear(3 * heads, 4)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        queries = queries + self.back(self.first(queries, keys)).tanh()
        return self.out(self.second(queries, keys).tanh()).sum(1)


@st.composite
def cases(draw: st.DrawFn) -> dict:
    batch = draw(st.integers(1, 3))
    key_heads = draw(st.integers(1, 2))
    heads = key_heads * draw(st.sampled_from([1, 1, 2]))
    queries, keys = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    kind = draw(
        st.sampled_from(["none", "causal", "padding", "bool", "bool heads", "float"])
    )
    allowed = bias = None
    if kind == "padding":
        lengths = torch.tensor([draw(st.integers(1, keys)) for _ in range(batch)])
        allowed = (torch.arange(keys) < lengths[:, None])[:, None, None]
        if draw(st.booleans()):  # as some libraries hand it over
            allowed = allowed.repeat(1, 1, queries, 1)
    elif kind.startswith("bool"):
        rows = (batch, heads, queries) if kind == "bool heads" else (queries,)
        allowed = torch.rand(*rows, keys) < 0.6
        allowed[..., 0] = True
    elif kind == "float":
        bias = torch.randn(batch, 1, queries, keys)
        if draw(st.booleans()):
            bias = bias.masked_fill(torch.rand(bias.shape) < 0.3, -1e9)
            bias[..., 0] = 0.5
    return {
        "seed": draw(st.integers(0, 99)),
        "batch": batch,
        "heads": heads,
        "key_heads": key_heads,
        "shape": (queries, keys),
        "causal": kind == "causal",
        "allowed": allowed,
        "bias": bias,
        "scale": draw(st.sampled_from([None, 0.3])),
        "frozen": draw(st.booleans()),
    }


def needs_gqa(case: dict) -> bool:
    return case["heads"] != case["key_heads"]


def build(case: dict, dtype: torch.dtype) -> tuple[Model, tuple[Tensor, Tensor]]:
    torch.manual_seed(case["seed"])
    model = Model(case["heads"], case["key_heads"], case).to(dtype).eval()
    model.requires_grad_(not case["frozen"])
    queries, keys = case["shape"]
    case["bias"] = None if case["bias"] is None else case["bias"].to(dtype)
    inputs = (
        torch.randn(case["batch"], queries, 6, dtype=dtype),
        torch.randn(case["batch"], keys, 6, dtype=dtype),
    )
    return model, inputs


def truth(model: Model, inputs: tuple[Tensor, Tensor]) -> list[tuple[Tensor, ...]]:
    """Weights, gradient and allowed pairs of both calls, from the definitions."""
    attend = reference.MaterialisedAttention()
    fused = model.first.attend
    model.first.attend = model.second.attend = attend
    score = model(*inputs)[:, 2]
    model.first.attend, model.second.attend = fused, model.second.fused
    gradients = reference.weight_gradients(score, attend.weights)
    allowed = list(attend.allowed)
    if model.first.case["bias"] is not None:
        # An additive mask rules out what it pushes to nothing.
        allowed = [a & (model.first.case["bias"] > -1e8) for a in allowed]
    return list(zip(attend.weights, gradients, allowed, strict=True))


@given(cases(), st.sampled_from(OPTIONS))
@settings(max_examples=120)
def test_all_scores_equal_the_definition(
    case: dict, options: tuple[bool, bool]
) -> None:
    if needs_gqa(case) and torch.__version__ < "2.5":
        return  # enable_gqa came with torch 2.5
    multiply, center = options
    model, inputs = build(case, torch.float64)
    expected = [
        reference.pair_scores(*of_call, multiply, center)
        for of_call in truth(model, inputs)
    ]
    choice = {"multiply_by_attention": multiply, "center": center}

    method = AttentionGradient(model, **choice)
    (summed,) = method.attribute(inputs, target=2)
    assert summed.shape == (case["batch"], case["shape"][1])
    assert_close(summed, sum(e.sum((1, 2)) for e in expected))

    rows = torch.randint(case["shape"][0], (case["batch"],))
    (picked,) = method.attribute(inputs, target=2, query=rows)
    each = torch.arange(case["batch"])
    assert_close(picked, sum(e[each, :, rows].sum(1) for e in expected))
    (last,) = method.attribute(inputs, target=2, query=-1)
    assert_close(last, sum(e[:, :, -1].sum(1) for e in expected))

    layers = LayerAttentionGradient(model, [model.first, model.second], **choice)
    maps, weights = layers.attribute(inputs, target=2, return_attention=True)
    for ours, theirs in zip(maps, expected, strict=True):
        assert_close(ours, theirs)
    for ours, (theirs, _, allowed) in zip(weights, truth(model, inputs), strict=True):
        assert_close(ours, theirs.detach())
        assert not ours[~allowed].any()


@given(cases(), st.sampled_from(OPTIONS))
@settings(max_examples=40)
def test_float32_is_close_to_float64(case: dict, options: tuple[bool, bool]) -> None:
    if needs_gqa(case) and torch.__version__ < "2.5":
        return
    choice = dict(zip(("multiply_by_attention", "center"), options, strict=True))
    model, inputs = build(case, torch.float64)
    (expected,) = AttentionGradient(model, **choice).attribute(inputs, target=2)
    model, inputs = build(case, torch.float64)
    case["bias"] = None if case["bias"] is None else case["bias"].float()
    (found,) = AttentionGradient(model.float(), **choice).attribute(
        tuple(i.float() for i in inputs), target=2
    )
    assert found.dtype == torch.float32
    # Relative to the size of the terms: centring and the sums may cancel them.
    terms = LayerAttentionGradient(model).attribute(
        tuple(i.float() for i in inputs), target=2
    )
    size = max(float(t.abs().max()) for t in terms) * case["shape"][0] + 1e-6
    assert float((found - expected).abs().max()) <= 1e-5 * size


def test_bfloat16_is_summed_in_float32() -> None:
    case = {"batch": 2, "heads": 2, "key_heads": 2, "shape": (4, 5), "seed": 3}
    case |= {"causal": False, "allowed": None, "bias": None, "scale": None}
    model, inputs = build(case | {"frozen": False}, torch.float32)
    for options in OPTIONS:
        choice = dict(zip(("multiply_by_attention", "center"), options, strict=True))
        (expected,) = AttentionGradient(model.float(), **choice).attribute(inputs, 2)
        (found,) = AttentionGradient(model.bfloat16(), **choice).attribute(
            tuple(i.bfloat16() for i in inputs), 2
        )
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)])
def test_causal_calls_with_unequal_lengths(shape: tuple[int, int]) -> None:
    case = {"batch": 2, "heads": 2, "key_heads": 2, "shape": shape, "seed": 1}
    case |= {"causal": True, "allowed": None, "bias": None, "scale": None}
    model, inputs = build(case | {"frozen": False}, torch.float64)
    (found,) = AttentionGradient(model).attribute(inputs, target=2)
    expected = sum(
        reference.pair_scores(*of_call, False, False).sum((1, 2))
        for of_call in truth(model, inputs)
    )
    assert_close(found, expected)
    assert not found[:, shape[0] :].any()  # keys that come after every query


def test_a_mask_too_large_for_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_attngrad.capture._masks.BLOCK", 1)
    case = {"batch": 2, "heads": 2, "key_heads": 2, "shape": (5, 4), "seed": 1}
    case |= {"causal": False, "bias": None, "scale": None, "frozen": False}
    for rows in ((5,), (2, 2, 5)):
        case["allowed"] = torch.rand(*rows, 4) < 0.5
        case["allowed"][..., 0] = True
        model, inputs = build(case, torch.float64)
        (found,) = AttentionGradient(model).attribute(inputs, target=2)
        expected = sum(
            reference.pair_scores(*of_call, False, False).sum((1, 2))
            for of_call in truth(model, inputs)
        )
        assert_close(found, expected)


class _Sizes(torch.overrides.TorchFunctionMode):
    """Notes the most bytes behind any tensor that a torch function returns."""

    largest = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ["none", "causal", "padding"])
def test_no_tensor_with_queries_and_keys(kind: str, options: tuple[bool, bool]) -> None:
    length = 512
    case = {"batch": 1, "heads": 1, "key_heads": 1, "shape": (length, length)}
    case |= {"causal": kind == "causal", "bias": None, "scale": None, "seed": 0}
    padding = (torch.arange(length) < 500)[None, None, None]
    case["allowed"] = padding if kind == "padding" else None
    model, inputs = build(case | {"frozen": False}, torch.float32)
    choice = dict(zip(("multiply_by_attention", "center"), options, strict=True))
    method = AttentionGradient(model, **choice)
    with _Sizes() as sizes:
        method.attribute(inputs, target=2)
        method.attribute(inputs, target=2, query=0)
    # A boolean matrix would have length^2 bytes, the weights four times that.
    assert length * 6 * 4 <= sizes.largest < length * length


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
