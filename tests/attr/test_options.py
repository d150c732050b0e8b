"""Options that the classes share: heads, positive_only, query and reduce."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_attngrad.attr import (
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    AttentionWeights,
    IntegratedAttentionGradient,
    LayerAttentionGradient,
)
from tests import reference
from tests.attr.encoder import WIDTH, Encoder, Sizes, close, encoders
from tests.attr.encoder import weights_and_gradients as truth
from tests.attr.models import classifier, token_ids
from tests.attr.surroundings import Replicated, state, unchanged
from tests.attr.test_exact_fused import Attention, build, cases, needs_gqa
from tests.attr.test_exact_fused import truth as fused_truth

FAMILY = [
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    AttentionWeights,
    IntegratedAttentionGradient,
    LayerAttentionGradient,
]
SCORES = list(itertools.product((False, True), repeat=3))
REDUCED = {None: (), "head": (2, 3), "key": (2,), "query": (3,)}


def options(scores: tuple[bool, bool, bool]) -> dict[str, bool]:
    names = ("multiply_by_attention", "center", "positive_only")
    return dict(zip(names, scores, strict=True))


def pair_scores(triple: tuple[Tensor, ...], scores: tuple[bool, bool, bool]) -> Tensor:
    result = reference.pair_scores(*triple, *scores[:2])
    return result.clamp(min=0) if scores[2] else result


def reduced(scores: Tensor, reduce: str | None) -> Tensor:
    return scores.sum(REDUCED[reduce]) if reduce else scores


def zero_by_construction(scores: tuple[bool, bool, bool], reduce: str | None) -> bool:
    return scores == (True, True, False) and reduce in ("head", "query")


@given(cases(), st.sampled_from(SCORES), st.sampled_from(list(REDUCED)), st.booleans())
@settings(max_examples=150)
def test_reductions_of_fused_calls(case, scores, reduce, small_blocks: bool) -> None:
    if needs_gqa(case) and torch.__version__ < "2.5":
        return  # enable_gqa came with torch 2.5
    if zero_by_construction(scores, reduce):
        return
    model, inputs = build(case, torch.float64)
    expected = [pair_scores(triple, scores) for triple in fused_truth(model, inputs)]
    method = LayerAttentionGradient(
        model, [model.first, model.second], **options(scores)
    )
    rows, each = torch.randint(case["shape"][0], (case["batch"],)), range(case["batch"])
    with pytest.MonkeyPatch.context() as patch:
        if small_blocks:
            patch.setattr("captum_attngrad.capture._masks.BLOCK", 1)
        found = method.attribute(inputs, 2, reduce=reduce)
        of_rows = method.attribute(inputs, 2, reduce=reduce, query=rows)
        (summed,) = AttentionGradient(model, **options(scores)).attribute(inputs, 2)
    for ours, row, theirs in zip(found, of_rows, expected, strict=True):
        close(ours, reduced(theirs, reduce))
        close(row, reduced(theirs[each, :, rows].unsqueeze(2), reduce))
    close(summed, sum(e.sum((1, 2)) for e in expected))


@given(encoders(), st.sampled_from(SCORES), st.sampled_from(list(REDUCED)))
@settings(max_examples=60)
def test_reductions_and_heads(case, scores, reduce) -> None:
    if zero_by_construction(scores, reduce):
        return
    model, x, tokens = case
    heads = model.layers[0].heads
    allowed = torch.ones(1, dtype=torch.bool)
    everything = [
        pair_scores((a, g, allowed.expand_as(a)), scores)
        if not scores[1]
        else pair_scores((a, g, a > 0), scores)
        for a, g in truth(model, x, tokens, 1)
    ]
    chosen = torch.randperm(heads)[: 1 + torch.randint(heads, ())].tolist()
    mask = torch.rand(len(everything), heads) < 0.5
    mask[0, 0] = True
    for given_heads, kept in (
        (chosen, [chosen] * len(everything)),
        ([h - heads for h in chosen], [chosen] * len(everything)),
        (mask, [row.nonzero().squeeze(1) for row in mask]),
        (mask.numpy(), [row.nonzero().squeeze(1) for row in mask]),
        (mask[0].tolist(), [mask[0].nonzero().squeeze(1)] * len(everything)),
    ):
        choice = {"heads": given_heads, **options(scores)}
        found = LayerAttentionGradient(model, **choice).attribute(
            x, 1, tokens, reduce=reduce
        )
        for ours, theirs, k in zip(found, everything, kept, strict=True):
            close(ours, reduced(theirs[:, k], reduce))
        summed = AttentionGradient(model, **choice).attribute(x, 1, tokens)
        kept_sums = [e[:, k].sum((1, 2)) for e, k in zip(everything, kept, strict=True)]
        close(summed, sum(kept_sums))
        last = AttentionGradient(model, **choice).attribute(x, 1, tokens, query=-1)
        kept_rows = [e[:, k, -1].sum(1) for e, k in zip(everything, kept, strict=True)]
        close(last, sum(kept_rows))


def test_which_heads_speak_for_the_answer() -> None:
    torch.manual_seed(0)
    model, x = Encoder(2, 3).double().eval(), torch.randn(2, 4, WIDTH).double()
    scores = LayerAttentionGradient(model).attribute(x, 1, reduce="head")
    assert [tuple(s.shape) for s in scores] == [(2, 3), (2, 3)]
    # Each head by itself tells the same.
    for layer, head in itertools.product(range(2), range(3)):
        mask = torch.zeros(2, 3, dtype=torch.bool)
        mask[layer, head] = True
        alone = AttentionGradient(model, heads=mask).attribute(x, 1)
        close(alone.sum(1), scores[layer][:, head])
    one = LayerAttentionGradient(model, model.layers[1]).attribute(x, 1, reduce="head")
    close(one, scores[1])


def test_masks_follow_the_order_of_the_layers_given() -> None:
    torch.manual_seed(0)
    model, x = Encoder(2, 2).double().eval(), torch.randn(2, 4, WIDTH).double()
    first, second = model.layers
    mask = torch.tensor([[True, False], [False, False]])
    expected = AttentionGradient(model, second, heads=[0]).attribute(x, 1)
    close(
        AttentionGradient(model, [second, first], heads=mask).attribute(x, 1), expected
    )
    maps = LayerAttentionGradient(model, [second, first], heads=mask).attribute(x, 1)
    close(maps[0].sum((1, 2)), expected)
    assert maps[1].shape == (2, 0, 4, 4)


def test_replicas() -> None:
    model, (ids, mask) = classifier(), token_ids()
    spread = Replicated(model, 2)
    for reduce in REDUCED:
        for query in (None, torch.tensor([0, 1, 2, 4])):
            choice = {"reduce": reduce, "query": query}
            expected = LayerAttentionGradient(model).attribute(ids, 1, mask, **choice)
            found = LayerAttentionGradient(spread).attribute(ids, 1, mask, **choice)
            for ours, theirs in zip(found, expected, strict=True):
                close(ours, theirs)


class Loop(torch.nn.Module):
    """One module that attends twice in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        case = {"causal": False, "allowed": None, "bias": None, "scale": None}
        self.attention = Attention(6, 2, 2, case)
        self.back = torch.nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        first = self.attention(x, x)
        return self.attention(self.back(first)[:, :2], x).square().sum(1)


def test_layers_that_run_twice() -> None:
    torch.manual_seed(0)
    model, x = Loop().double().eval(), torch.randn(2, 3, 6, dtype=torch.float64)
    method = LayerAttentionGradient(model, model.attention)
    maps = method.attribute(x, 1)
    assert maps.shape == (2, 2, 5, 3)
    for reduce in ("head", "key", "query"):
        close(method.attribute(x, 1, reduce=reduce), reduced(maps, reduce))
    for row in (1, 3, -1):
        found = method.attribute(x, 1, query=row, reduce="key")
        close(found, maps[:, :, row])
    weights = AttentionWeights(model)
    close(weights.attribute(x).sum(1), torch.full((2,), 5.0).double())
    some = torch.tensor([[True, False, True, False, True]] * 2)
    rows = [weights.attribute(x, query=q) for q in (0, 2, 4)]
    close(weights.attribute(x, query=some), sum(rows))


@pytest.mark.parametrize("scores", [(True, False, True), (False, True, True)])
def test_the_clamp_is_taken_in_blocks(scores, monkeypatch) -> None:
    length, block = 512, 1 << 14
    monkeypatch.setattr("captum_attngrad.capture._masks.BLOCK", block)
    model, x = Encoder(2, 1).eval(), torch.randn(1, length, WIDTH)
    layers = LayerAttentionGradient(model, **options(scores))
    with Sizes() as sizes:
        AttentionGradient(model, **options(scores)).attribute(x, 1)
        for reduce in ("head", "key", "query"):
            layers.attribute(x, 1, reduce=reduce)
    assert length * WIDTH * 4 <= sizes.largest <= 4 * block < length * length


@pytest.mark.parametrize("scores", [s for s in SCORES if not s[2]])
@pytest.mark.parametrize("causal", [False, True])
def test_closed_forms_build_no_tensor_with_queries_and_keys(scores, causal) -> None:
    length = 512
    case = {"causal": causal, "allowed": None, "bias": None, "scale": None}
    model, x = Attention(6, 1, 1, case).eval(), torch.randn(1, length, 6)
    method = LayerAttentionGradient(
        lambda x: model(x, x)[:, 0], model, **options(scores)
    )
    with Sizes() as sizes:
        for reduce in ("head", "key", "query"):
            if not zero_by_construction(scores, reduce):
                method.attribute(x, 1, reduce=reduce)
    assert length * 3 * 4 <= sizes.largest < length * length


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([], "chooses no head"),
        ([False, False], "chooses no head"),
        (2, "heads must be a list of indices"),
        ("first", "must be a list of indices.*got 'first'"),
        ([0.5], "must be a list of indices"),
        ([[0, 1]], "must be a list of indices"),
        ([0, 2], r"head 2 is out of range: layer 'layers\.0' has 2 heads"),
        ([-3], "head -3 is out of range"),
        ([1, -1], r"more than once: \[1, -1\]"),
        ([True] * 3, r"mask for 3 heads, and layer 'layers\.0' has 2"),
        (np.ones((3, 2), bool), r"3 layers, and there are 2: 'layers\.0', 'layers\.1'"),
    ],
)
def test_bad_heads(method, heads: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(classifier(), heads=heads).attribute(token_ids()[0], 1)


def test_bad_reductions() -> None:
    model, (ids, _) = classifier(), token_ids()
    with pytest.raises(ValueError, match="reduce='heads' is unknown"):
        LayerAttentionGradient(model).attribute(ids, 1, reduce="heads")
    with pytest.raises(ValueError, match="return_attention=True goes with whole maps"):
        LayerAttentionGradient(model).attribute(
            ids, 1, reduce="key", return_attention=True
        )
    zero = LayerAttentionGradient(model, multiply_by_attention=True, center=True)
    for reduce in ("head", "query"):
        with pytest.raises(ValueError, match=rf"sum to 0 by .*reduce='{reduce}'"):
            zero.attribute(ids, 1, reduce=reduce)
    maps = zero.attribute(ids, 1)
    for reduce in ("head", "query"):
        assert float(max(reduced(m, reduce).abs().max() for m in maps)) < 1e-12
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(4,\)"):
        LayerAttentionGradient(model).attribute(ids, 1, query=torch.tensor([0, 1]))


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("stop", [None, KeyboardInterrupt])
def test_the_model_is_as_before(method, frozen: bool, stop) -> None:
    model, (ids, mask) = classifier(), token_ids()
    model(ids).sum().backward()
    model.requires_grad_(not frozen)
    if stop is not None:

        def fail(*_: object) -> None:
            raise stop("on the way")

        model.layers[1].out.register_forward_hook(fail)
    before = state(model)
    attribution = method(model)
    if stop is None:
        attribution.attribute(ids, 1, mask)
    else:
        with pytest.raises(stop, match="on the way"):
            attribution.attribute(ids, 1, mask)
    unchanged(before, model)
    assert method.attribute.__wrapped__  # NoiseTunnel and TCAV call it
