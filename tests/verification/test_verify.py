"""verify: what is exact passes, and everything that is not is found."""

import math

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import verify
from captum_attngrad.capture.keys import KeyStatus
from captum_attngrad.verification import Verification
from tests.attr.encoder import Encoder, fused, written_out
from tests.attr.surroundings import state, unchanged

WIDTH = 8


class Attention(nn.Module):
    """One written-out attention layer, with a hook for what is done to its weights."""

    def __init__(self, change=lambda weights: weights, after=lambda out: out) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.change, self.after = change, after

    def forward(self, x: Tensor) -> Tensor:
        scores = self.q(x) @ self.k(x).mT / math.sqrt(WIDTH)
        weights = self.change(scores.softmax(-1))
        return self.after(weights @ self.v(x) + x).tanh().sum(1)


class WrongGradient(torch.autograd.Function):
    """Twice the gradient that the derivative is."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return 2 * gradient


def inputs(batch: int = 3) -> Tensor:
    return torch.randn(batch, 5, WIDTH)


@pytest.mark.parametrize("attend", [fused, written_out])
def test_an_exact_model(attend) -> None:
    model = Encoder(2, 2, attend).eval()
    before = state(model)
    found = verify(model, torch.randn(3, 5, model.layers[0].qkv.in_features))
    unchanged(before, model)
    assert isinstance(found, Verification)
    assert found
    assert found.ok
    assert found.dtype == "float64"
    assert found.independent is True
    assert not found.vanished
    assert len(found.layers) == 2
    for layer in found.layers:
        assert layer.layout == "3 x 2 x 5 x 5"
        assert layer.proved_by == "proof run"
        assert layer.keys is KeyStatus.TOKENS
        assert layer.relative_error is not None
        assert layer.relative_error < 1e-7
    assert "exact (finite differences in float64" in str(found)
    assert "3 x 2 x 5 x 5" in str(found)


def test_a_wrong_gradient_is_found() -> None:
    model = Attention(after=WrongGradient.apply).eval()
    found = verify(model, inputs())
    assert not found
    (layer,) = found.layers
    # The gradient is twice the derivative, and the error relative to the larger.
    assert layer.relative_error == pytest.approx(0.5, abs=1e-3)
    assert str(found).splitlines()[2].startswith("!")
    assert "not verified" in str(found)


def test_a_wrong_gradient_of_one_head_is_found() -> None:
    class OneHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Encoder(1, 2, fused)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    model = OneHead().eval()
    original = model.inner.layers[0].out.forward

    def halved(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return original(torch.cat([WrongGradient.apply(first), second], dim=-1))

    model.inner.layers[0].out.forward = halved
    wide = model.inner.layers[0].qkv.in_features
    found = verify(model, torch.randn(2, 4, wide), forward_func=model)
    assert not found
    assert found.dtype == "float32"


def test_a_lost_softmax_is_found() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = Attention()
            self.q = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            weights = (self.q(x) @ x.mT).softmax(-1)
            order = torch.arange(weights.shape[-1])
            return self.seen(weights.index_select(2, order) @ x)

    found = verify(Two().eval(), inputs())
    assert not found
    assert found.lost == (("", "index_select"),)
    assert "'index_select', which cannot be followed" in str(found)


def test_examples_that_influence_each_other() -> None:
    class Mixed(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + x.mean(0))

    for batch in (1, 3):
        found = verify(Mixed().eval(), inputs(batch))
        assert not found
        assert "influence each other" in str(found)


def test_a_saturated_output_is_found() -> None:
    model = Attention().eval()
    found = verify(model, inputs(), forward_func=lambda x: (1e4 * model(x)).softmax(-1))
    assert found.vanished
    assert not found
    assert "all scores have vanished" in str(found)
    assert found.dtype == "float32"


def test_no_attention() -> None:
    found = verify(nn.Sequential(nn.Flatten(), nn.Linear(5 * WIDTH, 2)), inputs())
    assert not found
    assert "No attention was found" in str(found)


def test_a_layer_that_is_not_on_the_path() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.beside = Attention(), Attention()

        def forward(self, x: Tensor) -> Tensor:
            self.beside(x)
            return self.seen(x)

    found = verify(Beside().eval(), inputs())
    assert found
    errors = {layer.name: layer.relative_error for layer in found.layers}
    assert errors["beside"] is None
    assert errors["seen"] is not None
    assert "not on the path" in str(found)


def test_windows_are_exact_but_have_no_score_for_each_token() -> None:
    class Windows(Attention):
        def forward(self, x: Tensor) -> Tensor:
            windows = x.reshape(2 * len(x), -1, WIDTH)
            return super().forward(windows).unflatten(0, (len(x), 2)).sum(1)

    found = verify(Windows().eval(), torch.randn(3, 6, WIDTH))
    assert found
    (layer,) = found.layers
    assert layer.keys is KeyStatus.APART
    assert layer.layout == "3 x 2 x 3 x 3"
    assert "has no score for each token (windows or blocks)" in str(found)


def test_one_example_and_half_precision() -> None:
    model = Attention().eval().bfloat16()
    x = inputs(1).bfloat16()
    found = verify(model, x, forward_func=model)
    assert found
    assert found.dtype == "bfloat16"
    assert found.independent is True


def test_additional_arguments_and_chosen_layers() -> None:
    class Scaled(Attention):
        def forward(self, x: Tensor, factor: Tensor) -> Tensor:
            return super().forward(x * factor)

    model = nn.ModuleDict({"used": Scaled()}).eval()
    found = verify(
        model["used"],
        inputs(),
        layer=[model["used"]],
        additional_forward_args=torch.tensor([[[2.0]], [[1.0]], [[0.5]]]),
    )
    assert found
    assert len(found.layers) == 1


def test_what_is_no_module() -> None:
    with pytest.raises(TypeError, match=r"verify needs a torch\.nn\.Module, got int"):
        verify(3, inputs())
