"""Rank correlations, cosine and overlap against their definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_attngrad.metrics.functional import (
    average_ranks,
    cosine_similarity,
    kendall_tau_b,
    spearman,
    top_k_overlap,
)


def slow_ranks(values: list[float]) -> list[float]:
    return [
        (sum(b < a for b in values) + sum(b <= a for b in values) + 1) / 2
        for a in values
    ]


def slow_cosine(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else math.nan


def slow_spearman(a: list[float], b: list[float]) -> float:
    middle = (len(a) + 1) / 2
    return slow_cosine(
        [r - middle for r in slow_ranks(a)], [r - middle for r in slow_ranks(b)]
    )


def slow_tau_b(a: list[float], b: list[float]) -> float:
    concordant = discordant = only_a = only_b = 0
    for i in range(len(a)):
        for j in range(i):
            x, y = a[i] - a[j], b[i] - b[j]
            concordant += x * y > 0
            discordant += x * y < 0
            only_a += x == 0 and y != 0
            only_b += y == 0 and x != 0
    both = concordant + discordant
    below = math.sqrt((both + only_a) * (both + only_b))
    return (concordant - discordant) / below if below else math.nan


def slow_overlap(a: list[float], b: list[float]) -> float:
    size = math.ceil(round(0.2 * len(a), 6))
    tops = [set(sorted(range(len(s)), key=lambda i: -s[i])[:size]) for s in (a, b)]
    return len(tops[0] & tops[1]) / size


SLOW = {
    spearman: slow_spearman,
    cosine_similarity: slow_cosine,
    kendall_tau_b: slow_tau_b,
    top_k_overlap: slow_overlap,
}


@settings(max_examples=80)
@given(data=st.data())
def test_batches_equal_the_definitions(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    few = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0])  # ties are common
    rows = [
        [data.draw(st.lists(few, min_size=n, max_size=n)) for n in lengths]
        for _ in range(2)
    ]
    longest = max(lengths)
    first, second = (
        torch.tensor([row + [float("nan")] * (longest - len(row)) for row in side])
        for side in rows
    )
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    for function, slow in SLOW.items():
        values = function(first, second, mask)
        expected = [slow(a, b) for a, b in zip(*rows, strict=True)]
        torch.testing.assert_close(
            values,
            torch.tensor(expected, dtype=torch.float64),
            rtol=0,
            atol=1e-12,
            equal_nan=True,
        )


def test_scipy_agrees() -> None:
    stats = pytest.importorskip("scipy.stats")
    a = torch.randint(0, 6, (1, 50)).double()
    b = a + torch.randint(0, 6, (1, 50))
    mask = torch.ones(1, 50, dtype=torch.bool)
    tau = stats.kendalltau(a[0].numpy(), b[0].numpy(), variant="b").statistic
    rho = stats.spearmanr(a[0].numpy(), b[0].numpy()).statistic
    assert kendall_tau_b(a, b, mask).item() == pytest.approx(tau, abs=1e-12)
    assert spearman(a, b, mask).item() == pytest.approx(rho, abs=1e-12)


def test_hand_computed() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    b = torch.tensor([[1.0, 3.0, 2.0, 4.0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert kendall_tau_b(a, b, mask).item() == pytest.approx(4 / 6)
    assert spearman(a, b, mask).item() == pytest.approx(0.8)
    assert top_k_overlap(a, b, mask, fraction=0.5).item() == 0.5
    assert average_ranks(torch.tensor([[5.0, 2.0, 5.0]]), mask[:, :3]).tolist() == [
        [2.5, 1.0, 2.5]
    ]


def test_scale_does_not_matter_and_sign_does() -> None:
    a = torch.randn(3, 9)
    mask = torch.ones(3, 9, dtype=torch.bool)
    for function in (spearman, cosine_similarity, kendall_tau_b):
        for factor in (1e-30, 1e30):  # squares of these do not fit a float32
            torch.testing.assert_close(
                function(a, a * factor, mask), torch.ones(3).double()
            )
        torch.testing.assert_close(function(a, -a, mask), -torch.ones(3).double())


@pytest.mark.parametrize("function", list(SLOW))
def test_bad_input_is_named(function: object) -> None:
    assert callable(function)
    mask = torch.ones(1, 3, dtype=torch.bool)
    good = torch.ones(1, 3)
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 2\)"):
        function(good, torch.ones(1, 2), mask)
    with pytest.raises(ValueError, match="inf at example 0, position 1"):
        function(good, torch.tensor([[0.0, torch.inf, 0.0]]), mask)
    with pytest.raises(TypeError, match="attributable has dtype"):
        function(good, good, mask.int())
    with pytest.raises(ValueError, match="no attributable token"):
        function(good, good, ~mask)


def test_overlap_fraction_is_checked() -> None:
    good: Tensor = torch.ones(1, 3)
    with pytest.raises(ValueError, match=r"bins holds 2\.0"):
        top_k_overlap(good, good, good.bool(), fraction=2)
