"""Rank correlations, AUROC and cluster indices against SciPy and scikit-learn."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad.metrics.functional import (
    average_ranks,
    cosine_similarity,
    davies_bouldin,
    detection_auroc,
    kendall_tau_b,
    silhouette,
    spearman,
)

stats = pytest.importorskip("scipy.stats")
distance = pytest.importorskip("scipy.spatial.distance")
sklearn_metrics = pytest.importorskip("sklearn.metrics")

# Few distinct numbers, so that there are many ties.
PAIRS = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12
)


@given(PAIRS)
def test_correlations(pairs: list[tuple[int, int]]) -> None:
    first, second = (torch.tensor([side]).double() for side in zip(*pairs, strict=True))
    everywhere = torch.ones_like(first, dtype=torch.bool)
    a, b = first[0].numpy(), second[0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's about constant scores
        expected = [
            (spearman, float(stats.spearmanr(a, b).statistic)),
            (kendall_tau_b, float(stats.kendalltau(a, b).statistic)),
            (cosine_similarity, 1 - float(distance.cosine(a, b))),
        ]
    if not (a.any() and b.any()):
        expected[2] = (cosine_similarity, math.nan)  # SciPy takes a zero vector's as 0
    for function, value in expected:
        found = float(function(first, second, everywhere))
        assert found == pytest.approx(value, abs=1e-9, nan_ok=True)
    ranks = average_ranks(first, everywhere)[0]
    np.testing.assert_array_equal(ranks, stats.rankdata(a))


def test_correlations_look_at_attributable_tokens_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(20, 15, generator=generator) for _ in range(2))
    attributable = torch.rand(20, 15, generator=generator) < 0.6
    attributable[:, :2] = True
    rows = zip(first, second, attributable, strict=True)
    expected = [
        (stats.spearmanr(a[m], b[m]).statistic, stats.kendalltau(a[m], b[m]).statistic)
        for a, b, m in rows
    ]
    found = [f(first, second, attributable) for f in (spearman, kendall_tau_b)]
    np.testing.assert_allclose(torch.stack(found, dim=1), expected, atol=1e-9)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.lists(st.integers(0, 4), min_size=1)),
        min_size=1,
        max_size=5,
    )
)
def test_auroc(texts: list[tuple[int, list[int]]]) -> None:
    longest = max(len(noise) for _, noise in texts)
    noise = torch.zeros(len(texts), longest).double()
    valid = torch.zeros(len(texts), longest, dtype=torch.bool)
    for row, (_, values) in enumerate(texts):
        noise[row, : len(values)] = torch.tensor(values)
        valid[row, : len(values)] = True
    attacked = torch.tensor([value for value, _ in texts]).double()
    expected = [
        sklearn_metrics.roc_auc_score([1] + [0] * len(values), [value, *values])
        for value, values in texts
    ]
    np.testing.assert_allclose(detection_auroc(attacked, noise, valid), expected)


@pytest.mark.parametrize("separation", [0.0, 1.0, 5.0])
def test_cluster_indices(separation: float) -> None:
    generator = np.random.default_rng(1)
    classes = np.repeat([0, 1, 4], 10)
    vectors = generator.normal(size=(30, 6))
    vectors[:, 0] += separation * classes
    found = silhouette(torch.tensor(vectors), torch.tensor(classes))
    expected = sklearn_metrics.silhouette_samples(vectors, classes, metric="cosine")
    np.testing.assert_allclose(found, expected, atol=1e-12)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    index = davies_bouldin(torch.tensor(vectors), torch.tensor(classes))
    assert float(index) == pytest.approx(
        sklearn_metrics.davies_bouldin_score(unit, classes)
    )
