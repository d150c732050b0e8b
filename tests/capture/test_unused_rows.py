"""The backward pass that leaves out queries which nothing used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_attngrad import AttentionGradient, IntegratedAttentionGradient
from captum_attngrad.capture._fused import unused_rows
from captum_attngrad.capture._sites import FusedSite
from tests import reference

LENGTH = 300


@pytest.fixture(scope="module", autouse=True)
def _from_one_query_on() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unused_rows, "_MIN_QUERIES", 1)
        yield


@pytest.fixture
def query_lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the calls that the function makes."""
    lengths: list[int] = []

    def attend(query: Tensor, *args: object, **kwargs: object) -> Tensor:
        lengths.append(query.shape[-2])
        return F.scaled_dot_product_attention(query, *args, **kwargs)

    def attend_at(site: FusedSite, value: Tensor) -> Tensor:
        lengths.append(site.query.shape[-2])
        return at_site(site, value)

    at_site = FusedSite.attend
    monkeypatch.setattr(unused_rows, "scaled_dot_product_attention", attend)
    monkeypatch.setattr(FusedSite, "attend", attend_at)
    return lengths


@st.composite
def cases(draw: st.DrawFn) -> dict:
    lead = draw(st.sampled_from([(2,), (1, 2), (3, 1)]))
    queries, keys = draw(st.integers(1, 24)), draw(st.integers(1, 9))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    kind = draw(st.sampled_from(["none", "causal", "pairs", "keys", "flat", "bias"]))
    pairs = {
        "pairs": (*lead, queries, keys),
        "keys": (*lead, 1, keys),
        "flat": (queries, keys),
        "bias": (queries, keys),
    }
    mask = None
    if kind == "bias":
        mask = torch.randn(pairs[kind], dtype=torch.float64)
    elif kind in pairs:
        mask = torch.rand(pairs[kind]) < 0.7
        mask[..., 0] = True
    return {
        "shapes": [(*lead, n, 3) for n in (queries, keys, keys)],
        "wanted": draw(st.lists(st.booleans(), min_size=3, max_size=3).filter(any)),
        "used": draw(st.lists(st.integers(0, queries - 1), max_size=4)),
        "causal": kind == "causal",
        "mask": mask,
        "scale": draw(st.sampled_from([None, 0.3])),
    }


@settings(max_examples=200)
@given(cases())
def test_gradients_from_the_definition(case: dict) -> None:
    inputs = [
        torch.randn(shape, dtype=torch.float64).requires_grad_(wanted)
        for shape, wanted in zip(case["shapes"], case["wanted"], strict=True)
    ]
    output = unused_rows.attend_skipping_unused(
        FusedSite(0, *inputs, case["mask"], case["causal"], case["scale"]), inputs[2]
    )
    cotangent = torch.zeros_like(output)
    cotangent[..., case["used"], :] = torch.randn_like(output[..., case["used"], :])
    taken = [tensor for tensor in inputs if tensor.requires_grad]
    found = torch.autograd.grad(output, taken, cotangent)

    mask, four = case["mask"], [t if t.dim() == 4 else t[None] for t in inputs]
    if case["causal"]:
        mask = torch.ones(output.shape[-2], inputs[1].shape[-2]).tril() > 0
    additive = mask is not None and mask.dtype != torch.bool
    slow = reference.MaterialisedAttention()(
        *four,
        allowed=None if additive else mask,
        bias=mask if additive else None,
        scale=case["scale"],
    ).view_as(output)
    expected = torch.autograd.grad(slow, taken, cotangent)
    assert torch.allclose(output, slow, atol=1e-10)
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-10)


class Reader(nn.Module):
    """Two causal layers; the score is read at some positions."""

    def __init__(self, positions: slice, checkpointed: bool = False) -> None:
        super().__init__()
        self.positions, self.checkpointed = positions, checkpointed
        self.layers = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def attend(self, number: int, x: Tensor) -> Tensor:
        q, k, v = self.layers[number](x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        output = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + output.transpose(1, 2).flatten(2).tanh()

    def forward(self, x: Tensor) -> Tensor:
        for number in range(2):
            if self.checkpointed:
                x = checkpoint(self.attend, number, x, use_reentrant=False)
            else:
                x = self.attend(number, x)
        return self.head(x[:, self.positions]).sum(1)


def truth(model: Reader, x: Tensor, target: int) -> Tensor:
    attend = reference.MaterialisedAttention()
    lower = torch.ones(x.shape[1], x.shape[1]).tril() > 0
    for layer in model.layers:
        q, k, v = layer(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        x = x + attend(q, k, v, allowed=lower).transpose(1, 2).flatten(2).tanh()
    score = model.head(x[:, model.positions]).sum(1)[:, target]
    gradients = reference.weight_gradients(score, attend.weights)
    return sum(g.masked_fill(~lower, 0).sum((1, 2)) for g in gradients)


LAST, ALL = slice(-1, None), slice(None)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("positions", [LAST, slice(40, 45), ALL])
def test_scores_are_exact(positions: slice, checkpointed: bool) -> None:
    model = Reader(positions, checkpointed).double()
    x = torch.randn(2, LENGTH, 8, dtype=torch.float64)
    found = AttentionGradient(model).attribute(x, target=1)
    assert torch.allclose(found, truth(model, x, 1), atol=1e-9)


def test_only_the_rows_that_count_go_backward(query_lengths: list[int]) -> None:
    x = torch.randn(1, LENGTH, 8)
    AttentionGradient(Reader(LAST)).attribute(x, target=1)
    # One forward pass each, and one row of the second layer once more.
    assert query_lengths == [LENGTH, LENGTH, 1]
    query_lengths.clear()
    AttentionGradient(Reader(ALL)).attribute(x, target=1)
    assert query_lengths == [LENGTH, LENGTH]


def test_examples_that_are_read_at_different_rows(query_lengths: list[int]) -> None:
    class Ends(Reader):
        def forward(self, x: Tensor) -> Tensor:
            for number in range(2):
                x = self.attend(number, x)
            return self.head(x[torch.arange(len(x)), torch.tensor([7, 250])])

    model = Ends(ALL).double()
    x = torch.randn(2, LENGTH, 8, dtype=torch.float64)
    found = AttentionGradient(model).attribute(x, target=0)
    assert query_lengths[-1] == 2
    for row, end in enumerate((7, 250)):
        model.positions = slice(end, end + 1)
        assert torch.allclose(
            found[row], truth(model, x[row : row + 1], 0)[0], atol=1e-9
        )


def test_short_calls_are_left_to_the_kernel(
    query_lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unused_rows, "_MIN_QUERIES", LENGTH + 1)
    AttentionGradient(Reader(LAST)).attribute(torch.randn(1, LENGTH, 8), target=1)
    assert query_lengths == [LENGTH, LENGTH]


def test_paths_that_scale_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Reader(LAST).double()
    x = torch.randn(2, LENGTH, 8, dtype=torch.float64)
    method = IntegratedAttentionGradient(model)
    found = method.attribute(x, target=2, n_steps=3)
    monkeypatch.setattr(unused_rows, "_MIN_QUERIES", LENGTH + 1)
    expected = method.attribute(x, target=2, n_steps=3)
    assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    model = Reader(LAST)
    x = torch.randn(1, LENGTH, 8)
    exact = AttentionGradient(model).attribute(x, target=1)
    found = AttentionGradient(model.to(dtype)).attribute(x.to(dtype), target=1)
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, atol=0.05 * float(exact.abs().max()))


def test_autocast() -> None:
    model = Reader(LAST)
    x = torch.randn(1, LENGTH, 8)
    exact = AttentionGradient(model).attribute(x, target=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = AttentionGradient(model).attribute(x, target=1)
    assert torch.allclose(found, exact, atol=0.05 * float(exact.abs().max()))
