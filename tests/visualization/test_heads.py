"""Layers against heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_attngrad import LayerAttentionGradient, plot_heads
from tests.visualization.drawing import (
    assert_apart,
    assert_inside,
    draw,
    marks,
    tick_labels,
    tick_texts,
)


def test_rows_are_layers_and_columns_heads() -> None:
    figure, ax = plot_heads(torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.0, 4.0]]))
    draw(figure)
    assert ax.images[0].get_array().tolist() == [[1, -2, 0], [0.5, 0, 4]]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("layer", "head")
    assert tick_texts(ax, "y") == ["0", "1"]
    assert tick_texts(ax, "x") == ["0", "1", "2"]
    assert ax.get_ylim() == (1.5, -0.5)  # layer 0 on top
    assert marks(ax) == {
        "supports": {(0, 0), (1, 0), (1, 2)},
        "argues against": {(0, 1)},
    }


def test_scores_of_a_real_model() -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        16, 4, 32, batch_first=True, activation="gelu"
    )
    encoder = torch.nn.TransformerEncoder(layer, 3).eval()
    method = LayerAttentionGradient(lambda x: encoder(x)[:, 0], encoder_layers(encoder))
    heads = method.attribute(torch.randn(1, 5, 16), target=2, reduce="head")
    figure, ax = plot_heads(heads)
    draw(figure)
    expected = torch.cat(list(heads)).numpy()
    assert expected.shape == (3, 4)
    np.testing.assert_allclose(ax.images[0].get_array(), expected)


def encoder_layers(encoder: torch.nn.TransformerEncoder) -> list[torch.nn.Module]:
    return list(encoder.layers)


@pytest.mark.parametrize(
    "scores",
    [
        [[1.0, -2.0], [3.0, 4.0]],
        [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0]], requires_grad=True)],
        [torch.tensor([1, -2]), np.array([3, 4])],
        torch.tensor([[[1.0, -2.0], [3.0, 4.0]]], dtype=torch.bfloat16),
        np.array([[1, -2], [3, 4]]),
    ],
)
def test_any_kind_of_numbers(scores: object) -> None:
    _, ax = plot_heads(scores)  # type: ignore[arg-type]
    assert ax.images[0].get_array().tolist() == [[1, -2], [3, 4]]


def test_layers_with_fewer_heads_are_hatched() -> None:
    figure, ax = plot_heads([[1.0], [0.0, -2.0, 0.0]])
    draw(figure)
    shown = ax.images[0].get_array()
    assert shown.tolist() == [[1, None, None], [0, -2, 0]]  # masked
    assert ax.patch.get_hatch()
    assert marks(ax) == {"supports": {(0, 0)}, "argues against": {(1, 1)}}
    _, full = plot_heads([[1.0, 2.0]])
    assert not full.patch.get_hatch()


def test_layer_names() -> None:
    names = ["encoder", "decoder, cross"]
    figure, ax = plot_heads(torch.ones(2, 8), layer_names=names)
    draw(figure)
    assert tick_texts(ax, "y") == names
    assert_inside(figure, tick_labels(ax, "y"))
    with pytest.raises(ValueError, match="layer_names has 1 entries for 2 layers"):
        plot_heads(torch.ones(2, 8), layer_names=["x"])


def test_many_layers_and_heads() -> None:
    torch.manual_seed(0)
    figure, ax = plot_heads(torch.randn(96, 128))
    draw(figure)
    for axis in ("x", "y"):
        assert_apart(tick_labels(ax, axis))
        assert_inside(figure, tick_labels(ax, axis))


def test_zeros_are_said_in_words() -> None:
    figure, ax = plot_heads(torch.zeros(6, 12))
    draw(figure)
    assert [text.get_text() for text in ax.texts] == ["all scores are 0"]


def test_wrong_scores_are_named() -> None:
    with pytest.raises(ValueError, match=r"layer 1 \('1'\), head 0 \('0'\) is nan"):
        plot_heads([[1.0], [float("nan")]])
    with pytest.raises(ValueError, match=r"layer 0 \('last'\), head 1 \('1'\) is inf"):
        plot_heads([[1.0, float("inf")]], layer_names=["last"])
    with pytest.raises(ValueError, match=r"\[layer\[0\] for layer in scores\]"):
        plot_heads([torch.ones(2, 12), torch.ones(2, 12)])
    with pytest.raises(ValueError, match="no layers"):
        plot_heads([])
    with pytest.raises(ValueError, match=r"expected \(layers, heads\)"):
        plot_heads(torch.ones(12))
    with pytest.raises(ValueError, match="no layers"):
        plot_heads(torch.ones(0, 4))
