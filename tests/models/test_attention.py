from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_attngrad.models import AdditiveAttention


def _reference(
    module: AdditiveAttention, keys: Tensor, query: Tensor | None, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Bahdanau's formula, one number at a time."""
    weight = module.key_projection.weight
    bias = module.key_projection.bias
    v = module.score.weight[0]
    allowed = [i for i in range(len(keys)) if mask[i]]
    scores = {}
    for i in allowed:
        hidden = weight @ keys[i] + bias
        if query is not None:
            assert module.query_projection is not None
            hidden = hidden + module.query_projection.weight @ query
        scores[i] = math.exp(float(v @ torch.tanh(hidden)))
    total = sum(scores.values())
    weights = torch.tensor(
        [scores.get(i, 0.0) / total for i in range(len(keys))], dtype=keys.dtype
    )
    context = sum((weights[i] * keys[i] for i in allowed), torch.zeros_like(keys[0]))
    return context, weights


@given(st.data())
def test_against_the_formula(data: st.DataObject) -> None:
    batch, length, size = (data.draw(st.integers(1, 4)) for _ in range(3))
    queries = data.draw(st.sampled_from([None, 0, 1, 3]))  # 0: one query, 2-D
    keys = torch.randn(batch, length, size, dtype=torch.float64)
    query_dim = None if queries is None else 2
    module = AdditiveAttention(size, query_dim, attention_dim=5).double()
    mask = torch.rand(batch, length) < 0.7
    mask[:, data.draw(st.integers(0, length - 1))] = True
    if queries is None:
        query = None
    else:
        query = torch.randn(*([batch, 2] if queries == 0 else [batch, queries, 2]))
        query = query.double()
    with torch.no_grad():
        context, weights = module(keys, query, mask)
        expected_shape = () if not queries else (queries,)
        assert context.shape == (batch, *expected_shape, size)
        assert weights.shape == (batch, *expected_shape, length)
        for b in range(batch):
            for t in range(queries or 1):
                one = None
                if query is not None:
                    one = query[b, t] if queries else query[b]
                truth = _reference(module, keys[b], one, mask[b])
                got = (context[b, t], weights[b, t]) if queries else None
                got = got or (context[b], weights[b])
                torch.testing.assert_close(got[0], truth[0], rtol=0, atol=1e-12)
                torch.testing.assert_close(got[1], truth[1], rtol=0, atol=1e-12)


def test_a_case_by_hand() -> None:
    module = AdditiveAttention(1, attention_dim=1)
    with torch.no_grad():
        module.key_projection.weight.fill_(100.0)  # tanh is then -1, 0 or 1
        module.key_projection.bias.zero_()
        module.score.weight.fill_(math.log(3.0))
        keys = torch.tensor([[[0.0], [2.0], [5.0]]])
        mask = torch.tensor([[True, True, False]])
        context, weights = module(keys, mask=mask)
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75, 0.0]]))
    torch.testing.assert_close(context, torch.tensor([[1.5]]))


def test_masked_keys_get_no_weight_and_no_gradient() -> None:
    module = AdditiveAttention(3)
    keys = torch.randn(2, 4, 3, requires_grad=True)
    mask = torch.tensor([[True, False, True, False], [True] * 4])
    context, weights = module(keys, mask=mask)
    assert weights[~mask].tolist() == [0.0, 0.0]
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    context.square().sum().backward()
    assert keys.grad is not None
    assert torch.isfinite(keys.grad).all()
    assert not keys.grad[~mask].any()
    assert keys.grad[mask].all()


def test_errors_say_what_is_expected() -> None:
    keys = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match="made with query_dim, so forward needs"):
        AdditiveAttention(3, 2)(keys)
    with pytest.raises(ValueError, match="made without query_dim, so forward takes no"):
        AdditiveAttention(3)(keys, torch.randn(2, 2))
    with pytest.raises(ValueError, match=r"bool of shape \(2, 4\).*got torch.float32"):
        AdditiveAttention(3)(keys, mask=torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"got torch.bool of shape \(2, 3\)"):
        AdditiveAttention(3)(keys, mask=torch.ones(2, 3, dtype=torch.bool))
