"""Raw attention: sums and means of the weights themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from captum_attngrad.attr import AttentionWeights
from tests.attr.encoder import (
    WIDTH,
    Encoder,
    Sizes,
    close,
    encoders,
    fused,
    weights_and_gradients,
    written_out,
)
from tests.attr.models import classifier, token_ids


@given(encoders())
@settings(max_examples=60)
def test_equals_the_definition(case) -> None:
    model, x, tokens = case
    maps = [a.mean(1) for a, _ in weights_and_gradients(model, x, tokens, 0)]
    method = AttentionWeights(model)
    close(method.attribute(x, None, tokens), sum(a.sum(1) for a in maps))
    close(method.attribute(x, None, tokens, query=-1), sum(a[:, -1] for a in maps))
    rows = torch.randint(x.shape[1], (len(x),))
    each = torch.arange(len(x))
    close(method.attribute(x, 1, tokens, query=rows), sum(a[each, rows] for a in maps))
    some = torch.rand(x.shape[:2]) < 0.5
    close(
        method.attribute(x, 1, tokens, query=some),
        sum((a * some.unsqueeze(2)).sum(1) for a in maps),
    )


def test_uniform_attention_by_hand() -> None:
    class Uniform(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            alike = torch.zeros_like(x)
            return nn.functional.scaled_dot_product_attention(alike, alike, x).sum(1)

    # Four queries give a quarter each to four keys.
    scores = AttentionWeights(Uniform()).attribute(torch.randn(2, 4, 3))
    torch.testing.assert_close(scores, torch.ones(2, 4))
    assert not scores.requires_grad


def test_the_target_does_not_matter_and_padding_does() -> None:
    model = classifier()
    ids, mask = token_ids()
    method = AttentionWeights(model)
    scores = method.attribute(ids, 1, mask)
    torch.testing.assert_close(scores, method.attribute(ids, 2, mask), rtol=0, atol=0)
    assert not scores[~mask].any()
    assert bool((scores[mask] > 0).all())
    # The rows of padding count, unless they are left out.
    alone = method.attribute(ids[1:2, :3], None)
    assert float((scores[1:2, :3] - alone).abs().max()) > 0.1
    close(method.attribute(ids, None, mask, query=mask)[1:2, :3], alone)
    (of_tuple,) = method.attribute((ids,), None, mask)
    torch.testing.assert_close(of_tuple, scores, rtol=0, atol=0)


@pytest.mark.parametrize(
    "fill", [-torch.inf, torch.finfo(torch.float32).min, -1e9, -1e4]
)
def test_queries_that_may_see_nothing_count_nothing(fill: float) -> None:
    bias = torch.zeros(3, 3).masked_fill(
        torch.tensor([False, True, False])[:, None], fill
    )

    def attend(q, k, v, allowed):
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    model, x = Encoder(1, 2, attend).eval(), torch.randn(2, 3, WIDTH)
    whole = AttentionWeights(model).attribute(x)
    torch.testing.assert_close(whole.sum(1), torch.full((2,), 2.0))
    two = [AttentionWeights(model).attribute(x, query=q) for q in (0, 2)]
    torch.testing.assert_close(whole, sum(two))


def test_heads() -> None:
    torch.manual_seed(0)
    model, x = Encoder(2, 3).double().eval(), torch.randn(2, 4, WIDTH).double()
    maps = [a.sum(2) for a, _ in weights_and_gradients(model, x, None, 0)]
    found = AttentionWeights(model, heads=[2, 0]).attribute(x)
    close(found, sum(a[:, [0, 2]].mean(1) for a in maps))
    mask = torch.tensor([[True, False, True], [False, False, False]])
    close(AttentionWeights(model, heads=mask).attribute(x), maps[0][:, [0, 2]].mean(1))


@pytest.mark.parametrize("attend", [fused, written_out])
def test_no_graph(attend) -> None:
    model, x = Encoder(2, 2, attend).eval(), torch.randn(2, 4, WIDTH)
    seen = []
    model.head.register_forward_hook(lambda *args: seen.append(args[2].requires_grad))
    for _ in range(2):
        AttentionWeights(model).attribute(x)
    # The layout is proved in the first call, by five passes without a graph.
    assert seen == [False] * 6


def test_no_tensor_with_queries_and_keys() -> None:
    length = 512
    model, x = Encoder(2, 1).eval(), torch.randn(1, length, WIDTH)
    with Sizes() as sizes:
        AttentionWeights(model).attribute(x)
        AttentionWeights(model).attribute(x, query=0)
    assert length * WIDTH * 4 <= sizes.largest < length * length


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (torch.ones(4, 6, dtype=torch.bool), "a mask for 6 queries, and layer"),
        (
            torch.ones(3, 5, dtype=torch.bool),
            r"shape \(3, 5\), expected \(4, queries\)",
        ),
        (torch.ones(4), "or a boolean tensor"),
        (5, "query=5 is out of range"),
    ],
)
def test_bad_queries(query: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionWeights(classifier()).attribute(token_ids()[0], query=query)
