"""Maps of outputs against inputs: what they show, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from captum_attngrad import plot_alignment
from tests.visualization.drawing import (
    HARD_TOKENS,
    assert_apart,
    assert_inside,
    draw,
    marks,
    tick_labels,
    tick_texts,
)

SCORES = [[0.5, -1.0, 0.0], [0.01, 0.25, 2.0]]


def color_at(ax: Any, row: int, column: int) -> tuple[float, ...]:
    """The color of a cell, as it is drawn."""
    image = ax.images[0]
    return tuple(float(v) for v in image.to_rgba(image.get_array())[row, column])


def test_cells_labels_and_axes() -> None:
    figure, ax = plot_alignment(["N", "AY"], list("nit"), SCORES)
    draw(figure)
    assert figure.axes[0] is ax
    np.testing.assert_array_equal(ax.images[0].get_array(), SCORES)
    assert tick_texts(ax, "y") == ["N", "AY"]
    assert tick_texts(ax, "x") == ["n", "i", "t"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("output", "input")
    # The first output is on top, cell (0, 0) at (0, 0).
    assert ax.get_ylim() == (1.5, -0.5)
    assert ax.get_xlim() == (-0.5, 2.5)


def test_zero_is_white_and_colors_diverge() -> None:
    _, ax = plot_alignment(["a", "b"], ["c", "d", "e"], SCORES)
    assert color_at(ax, 0, 2) == (1, 1, 1, 1)
    red, green, blue, _ = color_at(ax, 1, 2)
    assert green > 2 * max(red, blue)
    red, green, blue, _ = color_at(ax, 0, 1)
    assert green < min(red, blue) / 1.2
    # Symmetric limits, whichever side is stronger.
    assert ax.images[0].get_clim() == (-2.0, 2.0)


def test_the_strongest_score_has_full_color_on_either_side() -> None:
    _, plus = plot_alignment(["a"], ["b", "c"], [[3.0, 1.0]])
    _, minus = plot_alignment(["a"], ["b", "c"], [[-3.0, 1.0]])
    assert color_at(plus, 0, 0) != color_at(minus, 0, 0)
    assert color_at(plus, 0, 0) == pytest.approx(plus.images[0].cmap(1.0))
    assert color_at(minus, 0, 0) == pytest.approx(minus.images[0].cmap(0.0))


def test_rows_can_be_scaled_one_by_one() -> None:
    scores = [[4.0, -2.0], [0.01, 0.02], [1e-9, -1e-9]]
    figure, ax = plot_alignment(list("abc"), list("xy"), scores, scale_rows=True)
    draw(figure)
    # What has vanished stays white.
    expected = [[1, -0.5], [0.5, 1], [0, 0]]
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    assert "relative to each row" in figure.axes[1].get_ylabel()


def test_signs_are_marked_where_color_can_be_seen() -> None:
    _, ax = plot_alignment(["a", "b"], ["c", "d", "e"], SCORES)
    assert marks(ax) == {
        "supports": {(0, 0), (1, 1), (1, 2)},
        "argues against": {(0, 1)},
    }
    shapes = [collection.get_paths()[0] for collection in ax.collections]
    assert len(shapes[0].vertices) == 4  # two strokes
    assert len(shapes[1].vertices) == 2  # one


def test_marks_can_be_read_on_their_cells() -> None:
    scores = np.linspace(-1, 1, 41)[None]
    _, ax = plot_alignment(["a"], [str(i) for i in range(41)], scores)
    for collection in ax.collections:
        for (x, y), color in zip(
            collection.get_offsets(), collection.get_edgecolors(), strict=True
        ):
            assert contrast(color[:3], color_at(ax, int(y), int(x))[:3]) >= 3


def contrast(a: Any, b: Any) -> float:
    """As the Web Content Accessibility Guidelines define it; 3 is for graphics."""
    low, high = sorted(luminance(np.asarray(color)) for color in (a, b))
    return (high + 0.05) / (low + 0.05)


def luminance(color: Any) -> float:
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_color_bar_tells_the_signs() -> None:
    figure, ax = plot_alignment(["a", "b"], ["c", "d", "e"], SCORES)
    draw(figure)
    (bar,) = [other for other in figure.axes if other is not ax]
    assert tick_texts(bar, "y") == ["−2.00", "0", "+2.00"]
    assert "− argues against" in bar.get_ylabel()
    assert "+ supports" in bar.get_ylabel()


def test_500_tokens_keep_labels_apart_and_marks_few() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(500, 500))
    scores[123, 321] = -40
    tokens = [f"token{i}" for i in range(500)]
    figure, ax = plot_alignment(tokens, tokens, scores)
    draw(figure)
    assert max(figure.get_size_inches()) < 16
    for axis, strongest in (("x", 321), ("y", 123)):
        shown = tick_labels(ax, axis)
        assert 20 < len(shown) < 80
        assert f"token{strongest}" in [text.get_text() for text in shown]
        assert_apart(shown)
        assert_inside(figure, shown)
    assert f"({len(tick_labels(ax, 'x'))} of 500 named)" in ax.get_xlabel()
    assert marks(ax) == {"supports": set(), "argues against": {(123, 321)}}


def test_marks_of_fine_maps_are_apart() -> None:
    scores = np.random.default_rng(0).normal(size=(200, 200))
    tokens = [f"{i}" for i in range(200)]
    _, ax = plot_alignment(tokens, tokens, scores)
    places = np.array(sorted(set.union(*marks(ax).values())))
    assert 100 < len(places) < 2000
    for i, place in enumerate(places):
        distance = np.abs(places - place).max(axis=1)
        # 640 points for 200 cells.
        assert np.delete(distance, i).min() * 3.2 >= 9
    for row, column in places[:50]:
        sign = "supports" if scores[row, column] > 0 else "argues against"
        assert (row, column) in marks(ax)[sign]


def test_no_peak_is_lost_in_more_tokens_than_pixels() -> None:
    scores = np.zeros((2, 5000))
    scores[0, 1], scores[1, 4444] = -3, 2
    scores[1, 4445] = -1
    figure, ax = plot_alignment(["a", "b"], ["x"] * 5000, scores)
    draw(figure)
    shown = ax.images[0].get_array()
    assert shown.shape[1] < 1000
    assert (shown.min(), shown.max()) == (-3, 2)
    assert ax.get_xlim() == (-0.5, 4999.5)
    column = np.argwhere(shown == 2)[0, 1]
    assert column / shown.shape[1] == pytest.approx(4444 / 5000, abs=2e-3)


def test_hard_tokens_can_be_read() -> None:
    n = len(HARD_TOKENS)
    scores = np.random.default_rng(0).normal(size=(n, n))
    figure, ax = plot_alignment(HARD_TOKENS, HARD_TOKENS[::-1], scores)
    draw(figure)
    for axis in ("x", "y"):
        labels = tick_labels(ax, axis)
        assert len(labels) == n
        assert all(label.get_text() for label in labels)
        assert_apart(labels)
        assert_inside(figure, labels)


@pytest.mark.parametrize("n", [1, 3, 10, 40])
def test_labels_are_inside_and_apart(n: int) -> None:
    tokens = [f"longish-word-{i}" for i in range(n)]
    figure, ax = plot_alignment(tokens, tokens, np.eye(n))
    draw(figure)
    texts = [*tick_labels(ax, "x"), *tick_labels(ax, "y")]
    assert len(texts) >= min(2 * n, 50)
    assert_apart(tick_labels(ax, "x"))
    assert_apart(tick_labels(ax, "y"))
    bar = figure.axes[1]
    assert_inside(figure, [*texts, ax.xaxis.label, ax.yaxis.label, bar.yaxis.label])


def test_zeros_are_said_in_words() -> None:
    figure, ax = plot_alignment(["a"], ["b", "c"], torch.zeros(1, 2))
    draw(figure)
    assert [text.get_text() for text in ax.texts] == ["all scores are 0"]
    assert color_at(ax, 0, 0) == (1, 1, 1, 1)
    assert marks(ax) == {}


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e12])
def test_any_scale(scale: float) -> None:
    figure, ax = plot_alignment(["a", "b"], list("cde"), np.array(SCORES) * scale)
    draw(figure)
    assert len(marks(ax)["supports"]) == 3
    assert tick_texts(figure.axes[1], "y")[0] == f"−{2 * scale:.1e}".replace("-", "−")


@pytest.mark.parametrize(
    "scores",
    [
        torch.tensor([[1, -2]], dtype=torch.int8),
        torch.tensor([[1, -2]], dtype=torch.float16),
        torch.tensor([[1, -2]], dtype=torch.bfloat16),
        torch.tensor([[1.0, -2.0]], requires_grad=True),
        torch.tensor([[[1.0, -2.0]]]),  # a batch of one
        torch.tensor([[1.0, -2.0, 9.0], [7.0, 8.0, 9.0]]),  # padding
        np.array([[1, -2]], dtype=np.int64),
        np.array([[1, -2]], dtype=np.float32),
        [[1, -2]],
        ((1.0, -2.0),),
        [torch.tensor([1.0, -2.0], requires_grad=True)],
        [[torch.tensor(1.0, requires_grad=True), np.float32(-2)]],
    ],
)
def test_any_kind_of_numbers(scores: Any) -> None:
    _, ax = plot_alignment(["a"], ["b", "c"], scores)
    np.testing.assert_array_equal(ax.images[0].get_array(), [[1, -2]])


def test_drawn_where_it_is_told() -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    got_figure, ax = plot_alignment(["a", "b"], list("cde"), SCORES, ax=axes[1])
    assert got_figure is figure
    assert ax is axes[1]
    assert not axes[0].images
    draw(figure)
    assert_apart(tick_labels(ax, "x"))


def test_small_axes_name_what_fits() -> None:
    figure = Figure(figsize=(3, 2), layout="constrained")
    tokens = [f"w{i}" for i in range(40)]
    scores = np.zeros((40, 40))
    scores[17, 5] = 1
    _, ax = plot_alignment(tokens, tokens, scores, ax=figure.add_subplot())
    draw(figure)
    assert "w17" in tick_texts(ax, "y")
    assert "w5" in tick_texts(ax, "x")
    assert len(tick_texts(ax, "x")) < 20


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_named(bad: float) -> None:
    with pytest.raises(
        ValueError, match=rf"output 1 \('b'\), input 2 \('e'\) is {bad}; scores must be"
    ):
        plot_alignment(["a", "b"], list("cde"), [[1, 2, 3], [4, 5, bad]])
    with pytest.raises(ValueError, match="and 2 more are not finite"):
        plot_alignment(["a"], list("cde"), [[bad] * 3])


def test_not_finite_in_the_padding_does_not_matter() -> None:
    _, ax = plot_alignment(["a"], ["b"], [[1.0, float("nan")], [float("inf"), 0]])
    np.testing.assert_array_equal(ax.images[0].get_array(), [[1]])


def test_wrong_shapes_and_types_are_named() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 1, 3\); expected \(outputs, inp"):
        plot_alignment(["a"], list("cde"), torch.ones(2, 1, 3))
    with pytest.raises(ValueError, match=r"such as scores\[0\]"):
        plot_alignment(["a"], list("cde"), torch.ones(2, 1, 3))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        plot_alignment(["a"], list("cde"), torch.ones(3))
    with pytest.raises(ValueError, match="2 scores for the 3 entries of input_tokens"):
        plot_alignment(["a"], list("cde"), torch.ones(1, 2))
    with pytest.raises(ValueError, match="output_tokens is empty"):
        plot_alignment([], list("cde"), torch.ones(1, 3))
    with pytest.raises(TypeError, match="input_tokens is the string 'cde'"):
        plot_alignment(["a"], "cde", torch.ones(1, 3))
    with pytest.raises(TypeError, match=r"output_tokens\[0\] is 7, a int"):
        plot_alignment([7], list("cde"), torch.ones(1, 3))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="rows of equal length"):
        plot_alignment(["a", "b"], list("cde"), [[1, 2, 3], [1]])
    with pytest.raises(TypeError, match="real numbers"):
        plot_alignment(["a"], ["b"], [["x"]])
    with pytest.raises(TypeError, match="complex64; expected real numbers"):
        plot_alignment(["a"], ["b"], torch.ones(1, 1, dtype=torch.complex64))


def test_the_callers_settings_stay(recwarn: pytest.WarningsRecorder) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw(plot_alignment(["a", "b"], list("cde"), SCORES)[0])
    assert dict(mpl.rcParams) == before
    assert not recwarn.list
