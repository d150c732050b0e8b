"""Bars of token scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from captum_attngrad import plot_token_scores
from tests.visualization.drawing import (
    HARD_TOKENS,
    assert_apart,
    assert_inside,
    draw,
    tick_labels,
    tick_texts,
)


def lines(ax: Any) -> dict[str, list[tuple[float, float]]]:
    """(position, score) of the lines of each sign."""
    found = {}
    for collection in ax.collections:
        assert isinstance(collection, LineCollection)
        segments = collection.get_segments()
        assert all(start[1] == 0 and start[0] == end[0] for start, end in segments)
        found[str(collection.get_label())] = [(x, y) for _, (x, y) in segments]
    return found


def test_bars_numbers_and_labels() -> None:
    figure, ax = plot_token_scores(["a", "fine", "film"], [0.1, 0.8, -0.25])
    draw(figure)
    bars = ax.patches
    assert [bar.get_width() for bar in bars] == [0.1, 0.8, -0.25]
    assert all(bar.get_x() == 0 for bar in bars)
    assert tick_texts(ax, "y") == ["a", "fine", "film"]
    low, high = ax.get_ylim()
    assert low > high  # the first token on top
    assert [text.get_text() for text in ax.texts] == ["+0.100", "+0.800", "−0.250"]
    assert len({to_hex(bar.get_facecolor()) for bar in bars}) == 2
    assert ax.get_xlabel().index("− argues against") < ax.get_xlabel().index(
        "+ supports"
    )


def test_numbers_stand_at_the_ends_of_the_bars() -> None:
    figure, ax = plot_token_scores(["a", "b", "c"], [3.0, -3.0, 0.1])
    draw(figure)
    for bar, text in zip(ax.patches, ax.texts, strict=True):
        box, number = bar.get_window_extent(), text.get_window_extent()
        if bar.get_width() > 0:
            assert 0 <= number.x0 - box.x1 < 10
        else:
            assert 0 <= box.x0 - number.x1 < 10
    assert_inside(figure, ax.texts)


@pytest.mark.parametrize("n", [1, 8, 60])
@pytest.mark.parametrize("sign", [1, -1, 0.5])
def test_nothing_overlaps_or_is_cut(n: int, sign: float) -> None:
    scores = np.random.default_rng(n).normal(size=n)
    scores = scores if sign == 0.5 else sign * np.abs(scores)
    figure, ax = plot_token_scores([f"longish-word-{i}" for i in range(n)], scores)
    draw(figure)
    assert len(tick_labels(ax, "y")) == len(ax.texts) == n
    for texts in (tick_labels(ax, "y"), tick_labels(ax, "x"), ax.texts):
        assert_apart(texts)
        assert_inside(figure, texts)
    assert_inside(figure, [ax.xaxis.label])


def test_500_tokens_are_lines_with_the_strongest_named() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=500)
    # The second is too close to the first, but on the other side.
    scores[[77, 79, 300]] = [12.0, -8.0, -9.0]
    scores[10] = 0
    tokens = [f"token{i}" for i in range(500)]
    figure, ax = plot_token_scores(tokens, scores)
    draw(figure)
    assert max(figure.get_size_inches()) <= 12
    found = lines(ax)
    assert found["supports"] == [(i, s) for i, s in enumerate(scores) if s > 0]
    assert found["argues against"] == [(i, s) for i, s in enumerate(scores) if s < 0]
    names = {text.get_text(): text for text in ax.texts}
    assert {"token77", "token79", "token300"} <= set(names)
    assert f"({len(names)} of 500 named)" in ax.get_xlabel()
    # Above the line if it is positive, below it if not.
    zero = ax.transData.transform((0, 0))[1]
    assert names["token77"].get_window_extent().y0 > zero
    assert names["token300"].get_window_extent().y1 < zero
    assert_apart(ax.texts)
    assert_inside(figure, ax.texts)


def test_names_of_lines_do_not_stand_in_other_lines() -> None:
    scores = np.random.default_rng(1).normal(size=400)
    figure, ax = plot_token_scores(["word"] * 400, scores)
    draw(figure)
    assert len(ax.texts) > 5
    for text in ax.texts:
        box = text.get_window_extent()
        for place, score in enumerate(scores):
            x, y = ax.transData.transform((place, score))
            if box.x0 + 1 < x < box.x1 - 1 and np.sign(score) == np.sign(text.xy[1]):
                assert y <= box.y0 if score > 0 else y >= box.y1


def test_a_book_of_tokens() -> None:
    scores = np.zeros(20_000)
    scores[12_345] = -1e-6
    figure, ax = plot_token_scores(["word"] * 20_000, scores)
    draw(figure)
    assert lines(ax) == {"supports": [], "argues against": [(12_345, -1e-6)]}
    assert [text.get_text() for text in ax.texts] == ["word"]


@pytest.mark.parametrize("repeat", [1, 5])
def test_hard_tokens_can_be_read(repeat: int) -> None:
    tokens = HARD_TOKENS * repeat
    scores = np.random.default_rng(0).normal(size=len(tokens))
    figure, ax = plot_token_scores(tokens, scores)
    draw(figure)
    labels = tick_labels(ax, "y") if repeat == 1 else ax.texts
    assert all(label.get_text() for label in labels)
    assert_apart(labels)
    assert_inside(figure, labels)


@pytest.mark.parametrize("n", [3, 500])
def test_zeros_are_said_in_words(n: int) -> None:
    figure, ax = plot_token_scores(["w"] * n, torch.zeros(n))
    draw(figure)
    assert [text.get_text() for text in ax.texts] == ["all scores are 0"]


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e9])
def test_any_scale(scale: float) -> None:
    figure, ax = plot_token_scores(["a", "b"], [2 * scale, -scale])
    draw(figure)
    assert ax.texts[1].get_text() == f"−{scale:.1e}".replace("-", "−")


@pytest.mark.parametrize(
    "scores",
    [
        torch.tensor([1, -2]),
        torch.tensor([True, False]).int() * 3 - 2,
        torch.tensor([1.0, -2.0], dtype=torch.bfloat16, requires_grad=True),
        torch.tensor([[1.0, -2.0]]),
        np.array([1, -2], dtype=np.float16),
        (1, -2),
        [torch.tensor(1.0, requires_grad=True), -2],
        [1, -2, float("nan")],  # padding
    ],
)
def test_any_kind_of_numbers(scores: Any) -> None:
    _, ax = plot_token_scores(["a", "b"], scores)
    assert [bar.get_width() for bar in ax.patches] == [1, -2]


def test_drawn_where_it_is_told() -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    tokens = [f"word{i}" for i in range(50)]
    assert plot_token_scores(tokens, np.arange(50.0), ax=left) == (figure, left)
    assert plot_token_scores(tokens * 4, np.arange(200.0), ax=right) == (figure, right)
    draw(figure)
    assert len(left.patches) == 50
    assert "word49" in tick_texts(left, "y")
    assert_apart(tick_labels(left, "y"))
    assert_apart(left.texts)
    assert_apart(right.texts)
    assert_inside(figure, right.texts)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_named(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"token 1 \('b'\) is {bad}"):
        plot_token_scores(["a", "b"], [1, bad])


def test_wrong_shapes_and_types_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\); expected \(tokens,\) of on"):
        plot_token_scores(["a"], torch.ones(2, 3))
    with pytest.raises(ValueError, match="1 scores for the 2 entries of tokens"):
        plot_token_scores(["a", "b"], [1.0])
    with pytest.raises(TypeError, match="the string 'ab'"):
        plot_token_scores("ab", [1.0, 2.0])
    with pytest.raises(ValueError, match="tokens is empty"):
        plot_token_scores([], [])
