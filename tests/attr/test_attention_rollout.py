"""Attention rollout, against the product of whole matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad.attr import AttentionRollout
from tests.attr.encoder import WIDTH, Encoder, Sizes, close, encoders
from tests.attr.encoder import weights_and_gradients as truth
from tests.attr.test_errors import CrossAndSelf


def rollout(maps: list[Tensor], residual: float) -> Tensor:
    """The paper's recursion, first layer first, of (batch, heads, tokens, tokens)."""
    eye = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype)
    total = eye
    for weights in maps:
        mixed = (1 - residual) * weights.mean(1) + residual * eye
        total = (mixed / mixed.sum(-1, keepdim=True)) @ total
    return total


@given(encoders(), st.sampled_from([0.5, 0.0, 0.2, 1.0]))
@settings(max_examples=60)
def test_equals_the_definition(case, residual: float) -> None:
    model, x, tokens = case
    expected = rollout([a for a, _ in truth(model, x, tokens, 0)], residual)
    method = AttentionRollout(model, residual=residual)
    close(method.attribute(x, 0, tokens), expected.sum(1))
    close(method.attribute(x, 0, tokens, query=0), expected[:, 0])
    rows = torch.randint(-x.shape[1], x.shape[1], (len(x),))
    each = torch.arange(len(x))
    found = method.attribute(x, 0, tokens, query=rows)
    close(found, expected[each, rows])
    close(found.sum(1), torch.ones_like(found[:, 0]))
    if tokens is not None:
        found = method.attribute(x, 0, tokens, query=tokens)
        close(found, (expected * tokens.unsqueeze(2)).sum(1))
        assert not found[~tokens].any()


def test_two_layers_by_hand() -> None:
    class Fixed(nn.Module):
        """Position 0 looks at 1, and 1 at 1, whatever the input is."""

        def forward(self, x: Tensor) -> Tensor:
            scores = torch.tensor([[-1e9, 0.0], [-1e9, 0.0]]).expand(len(x), 2, 2)
            for _ in range(2):
                x = x + scores.softmax(-1) @ x
            return x.sum(1)

    # Half of position 0 stays in each layer: a quarter in the end.
    found = AttentionRollout(Fixed()).attribute(torch.randn(3, 2, 4), query=0)
    torch.testing.assert_close(found, torch.tensor([[0.25, 0.75]]).expand(3, 2))


def test_the_order_is_that_of_the_model_and_heads_can_be_chosen() -> None:
    torch.manual_seed(0)
    model = Encoder(3, 3).double().eval()
    x = torch.randn(2, 4, WIDTH, dtype=torch.float64)
    maps = [a for a, _ in truth(model, x, None, 0)]
    reverse = list(model.layers)[::-1]
    close(AttentionRollout(model, reverse).attribute(x), rollout(maps, 0.5).sum(1))
    some = AttentionRollout(model, heads=[1, -1]).attribute(x)
    close(some, rollout([a[:, 1:] for a in maps], 0.5).sum(1))
    # A mask goes by the order of the list. The layer without a head is left out.
    mask = torch.tensor([[True, True, True], [False] * 3, [False, True, False]])
    found = AttentionRollout(model, reverse, heads=mask).attribute(x)
    close(found, rollout([maps[0][:, 1:2], maps[2]], 0.5).sum(1))


def test_no_tensor_with_queries_and_keys() -> None:
    length = 512
    model, x = Encoder(2, 1).eval(), torch.randn(1, length, WIDTH)
    with Sizes() as sizes:
        AttentionRollout(model).attribute(x, query=0)
        AttentionRollout(model).attribute(x)
    assert length * WIDTH * 4 <= sizes.largest < length * length


def test_bad_input() -> None:
    model, x = CrossAndSelf().eval(), (torch.randn(2, 3, 8), torch.randn(2, 5, 8))
    with pytest.raises(ValueError, match=r"'cross_attention' attends from 3 .* 5 keys"):
        AttentionRollout(model).attribute(x)
    with pytest.raises(ValueError, match=r"residual=1\.5: expected a share"):
        AttentionRollout(model, residual=1.5)

    class TwoTowers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = (Encoder(1, 1) for _ in range(2))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.one(x) + self.two(y)

    x = (torch.randn(2, 3, WIDTH), torch.randn(2, 5, WIDTH))
    with pytest.raises(ValueError, match=r"'one.layers.0' has 3 tokens, layer 'two"):
        AttentionRollout(TwoTowers()).attribute(x)
