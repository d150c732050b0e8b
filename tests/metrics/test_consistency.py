"""Vectors of texts, and how classes separate them."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_attngrad.metrics import (
    ClassDistanceRatio,
    CorpusMetric,
    DaviesBouldin,
    InterClassSeparation,
    IntraClassCohesion,
    Silhouette,
)
from captum_attngrad.metrics.functional import (
    class_distance_ratio,
    davies_bouldin,
    inter_class_separation,
    intra_class_cohesion,
    score_vectors,
    silhouette,
)
from tests.metrics.known import (
    PlantedAttention,
    batch_of,
    occlusion,
    planted_texts,
    predicted,
    random_scores,
    text_model_of,
)

METRICS = (
    IntraClassCohesion,
    InterClassSeparation,
    ClassDistanceRatio,
    Silhouette,
    DaviesBouldin,
)
TABLE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])


def test_vector_is_the_weighted_mean_of_embeddings() -> None:
    ids = torch.tensor([[1, 2, 3], [1, 3, 0]])
    scores = torch.tensor([[3.0, -1.0, 0.0], [1.0, 1.0, float("inf")]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    vectors = score_vectors(scores, mask, ids, TABLE)
    # (3 (1, 0) - (0, 2)) / 4 and ((1, 0) + (-1, 1)) / 2
    assert vectors.tolist() == [[0.75, -0.5], [0.0, 0.5]]


def test_bag_counts_words_and_keeps_inner_products() -> None:
    ids = torch.randint(0, 500, (6, 20))
    scores = torch.randn(6, 20)
    mask = torch.ones(6, 20, dtype=torch.bool)
    vectors = score_vectors(scores, mask, ids, torch.zeros(500, 3), "bag")
    assert vectors.shape == (6, 1024)
    full = torch.zeros(6, 500).scatter_add_(1, ids, scores)
    full /= scores.abs().sum(dim=1, keepdim=True)
    torch.testing.assert_close(vectors @ vectors.T, full @ full.T, rtol=0, atol=0.02)
    once = score_vectors(
        torch.tensor([[2.0, 6.0]]),
        mask[:1, :2],
        torch.tensor([[7, 7]]),
        torch.zeros(500, 3),
        "bag",
    )
    assert once.abs().sum().item() == once.abs().max().item() == 1.0


def test_scale_of_scores_does_not_matter() -> None:
    ids = torch.tensor([[1, 2, 3]])
    mask = ids > 0
    scores = torch.tensor([[0.5, -0.25, 1.0]])
    for factor in (1e-38, 1e38):
        torch.testing.assert_close(
            score_vectors(scores * factor, mask, ids, TABLE),
            score_vectors(scores, mask, ids, TABLE),
        )
    assert score_vectors(scores * 0, mask, ids, TABLE).tolist() == [[0, 0]]


# Two texts of class 0 at a right angle, one of class 1 opposite to the first.
VECTORS = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])
CLASSES = torch.tensor([0, 0, 1])


def test_hand_computed() -> None:
    cohesion = intra_class_cohesion(VECTORS, CLASSES)
    assert cohesion[:2].tolist() == [0, 0]
    assert math.isnan(cohesion[2].item())  # alone in its class
    # Cosines to the other class: -1 and 0.
    separation = inter_class_separation(VECTORS, CLASSES)
    assert separation[:2].tolist() == [1, 0]
    assert math.isnan(separation[2].item())
    # Distances between classes 2, 1 and (from the third text) 1.5; within classes 1.
    assert class_distance_ratio(VECTORS, CLASSES).item() == 1.5
    # Silhouettes (b - a) / max(a, b): (2 - 1) / 2, (1 - 1) / 1, and 0 if alone.
    assert silhouette(VECTORS, CLASSES).tolist() == pytest.approx([0.5, 0, 0])
    # Class 0: centroid (½, ½), both at √½ from it; class 1: no spread; the centroids
    # are √(2.25 + 0.25) apart. The index is the same ratio for both classes.
    expected = math.sqrt(0.5) / math.sqrt(2.5)
    assert davies_bouldin(VECTORS, CLASSES).item() == pytest.approx(expected)


def test_one_direction_for_each_class_is_the_best() -> None:
    vectors = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [-3.0, 0.0]])
    classes = torch.tensor([1, 1, 4, 4])
    assert intra_class_cohesion(vectors, classes).tolist() == [1] * 4
    assert inter_class_separation(vectors, classes).tolist() == [2] * 4
    assert class_distance_ratio(vectors, classes).item() == math.inf
    assert silhouette(vectors, classes).tolist() == [1] * 4
    assert davies_bouldin(vectors, classes).item() == 0


@settings(max_examples=40)
@given(
    classes=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_linear_time_equals_all_pairs(classes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(classes), 3, generator=generator).double()
    vectors[0] = 0
    cosine = [
        [
            float(a @ b / (a.norm() * b.norm())) if a.norm() * b.norm() > 0 else 0.0
            for b in vectors
        ]
        for a in vectors
    ]
    cohesion: list[float] = []
    between: list[float] = []
    for i, mine in enumerate(classes):
        same = [cosine[i][j] for j, c in enumerate(classes) if c == mine and j != i]
        other = [cosine[i][j] for j, c in enumerate(classes) if c != mine]
        cohesion.append(sum(same) / len(same) if same else math.nan)
        between.append(sum(other) / len(other) if other else math.nan)
    for function, expected in (
        (intra_class_cohesion, cohesion),
        (
            inter_class_separation,
            [c - b for c, b in zip(cohesion, between, strict=True)],
        ),
    ):
        torch.testing.assert_close(
            function(vectors, torch.tensor(classes)),
            torch.tensor(expected).double(),
            rtol=0,
            atol=1e-6,
            equal_nan=True,
        )


def test_separation_is_half_the_squared_distance_of_the_centroids() -> None:
    classes = torch.arange(4000) % 2
    mean = torch.tensor([[0.3, 0.1, 0.0], [-0.2, 0.1, 0.4]])
    vectors = mean[classes] + torch.randn(4000, 3)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    centroids = [unit[classes == c].mean(dim=0) for c in (0, 1)]
    expected = (centroids[0] - centroids[1]).square().sum().item() / 2
    value = inter_class_separation(vectors, classes).mean().item()
    assert value == pytest.approx(expected, abs=2e-3)


def test_noise_is_not_separated() -> None:
    vectors = torch.randn(400, 50)
    classes = torch.arange(400) % 2
    assert abs(inter_class_separation(vectors, classes).mean().item()) < 0.01
    assert abs(class_distance_ratio(vectors, classes).item() - 1) < 0.01


@pytest.mark.parametrize("classes", [[0, 0, 0], [0, 1, 2]])
def test_nothing_to_compare_is_nan(classes: list[int]) -> None:
    labels = torch.tensor(classes)
    for function in (silhouette, davies_bouldin, class_distance_ratio):
        assert bool(function(VECTORS, labels).isnan().all())


def corpus(metric: CorpusMetric, scores: Tensor) -> float:
    model = text_model_of(PlantedAttention())
    batch = batch_of(planted_texts(40))
    table = model.embedding.get_parameter("weight")
    arguments = (batch.attributable, batch.input_ids, table)
    value = metric.value(
        metric.vectors(scores, *arguments),
        metric.vectors(torch.ones_like(scores), *arguments),
        predicted(model, batch),
    )
    assert value.shape == ((len(batch),) if metric.per_example else ())
    return value.nanmean().item()


@pytest.mark.parametrize("vector", ["embedding", "bag"])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("kind", METRICS)
def test_planted_word_is_consistent_and_random_is_not(
    kind: type[CorpusMetric], relative: bool, vector: str
) -> None:
    metric = kind(vector=vector, relative=relative)
    model = text_model_of(PlantedAttention())
    batch = batch_of(planted_texts(40))
    target = predicted(model, batch)
    truth, random, uniform = (
        corpus(metric, scores)
        for scores in (
            occlusion(model)(batch.input_ids, batch.attention_mask, target),
            random_scores()(batch.input_ids, batch.attention_mask, target),
            torch.ones(batch.input_ids.shape),
        )
    )
    sign = 1 if metric.higher_is_better else -1
    assert sign * truth > sign * random
    assert sign * truth > sign * uniform
    if relative:
        assert uniform == 0
        assert sign * truth > 0
    assert metric.name == (
        kind.name + ("_bag" if vector == "bag" else "") + ("_gain" if relative else "")
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="vector is 'tfidf'; expected one of: embed"):
        Silhouette(vector="tfidf")
    for function in (intra_class_cohesion, inter_class_separation, silhouette):
        with pytest.raises(ValueError, match=r"\(3, 2\).*\(2,\)"):
            function(VECTORS, CLASSES[:2])
    with pytest.raises(ValueError, match=r"input_ids has shape \(1, 2\)"):
        score_vectors(
            torch.ones(1, 3), torch.ones(1, 3).bool(), torch.ones(1, 2).long(), TABLE
        )


@pytest.mark.parametrize("function", [silhouette, davies_bouldin])
def test_missing_extra_is_named(
    function: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(function)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install 'captum-attngrad\[compare\]'"):
        function(VECTORS, CLASSES)
