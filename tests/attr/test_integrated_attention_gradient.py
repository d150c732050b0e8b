"""Integrated attention gradient, against the integral of its definition."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import NoiseTunnel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad.attr import AttentionGradient, IntegratedAttentionGradient
from tests.attr.encoder import WIDTH, Encoder, Sizes, close, encoders, fused
from tests.attr.models import classifier, token_ids
from tests.attr.surroundings import Replicated
from tests.attr.test_errors import CrossAndSelf
from tests.attr.test_exact_written_out import FORMS, WrittenOut
from tests.reference import MaterialisedAttention

SCALES = ("together", "one")


class ScaledAttention(MaterialisedAttention):
    """Attention with its weights multiplied by one number for each call."""

    def __init__(self, factors: list[float]) -> None:
        super().__init__()
        self.factors, self.scaled = factors, []

    def __call__(self, q, k, v, allowed=None) -> Tensor:
        super().__call__(q, k, v, allowed)
        scaled = self.weights[-1] * self.factors[len(self.scaled)]
        self.scaled.append(scaled)
        return scaled @ v


def integrand(
    model: Encoder, x, tokens, target, factors
) -> tuple[list[Tensor], Tensor]:
    """``A(alpha) ds/d(alpha A)`` of every call, and the score."""
    before = model.layers[0].attend
    attend = ScaledAttention(factors)
    score = model.attending(attend)(x, tokens)[:, target]
    model.attending(before)
    gradients = torch.autograd.grad(score.sum(), attend.scaled)
    pairs = zip(attend.weights, gradients, strict=True)
    return [(a * g).detach() for a, g in pairs], score.detach()


def definition(model, x, tokens, target, steps, scale) -> tuple[list[Tensor], Tensor]:
    """Pair scores of every call by Gauss-Legendre, and what they must sum to."""
    calls = len(model.layers)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    paths = [range(calls)] if scale == "together" else [[i] for i in range(calls)]
    total, due = [0.0] * calls, 0.0
    for path in paths:

        def factors(alpha: float, path=path) -> list[float]:
            return [alpha if i in path else 1.0 for i in range(calls)]

        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            scores, _ = integrand(model, x, tokens, target, factors(node))
            for i in path:
                total[i] = total[i] + weight * scores[i]
        ends = [integrand(model, x, tokens, target, factors(a))[1] for a in (1.0, 0.0)]
        due = due + ends[0] - ends[1]
    return total, due


@given(encoders(), st.sampled_from(SCALES), st.integers(1, 4))
@settings(max_examples=60)
def test_equals_the_definition(case, scale: str, steps: int) -> None:
    model, x, tokens = case
    expected, due = definition(model, x, tokens, 1, steps, scale)
    method = IntegratedAttentionGradient(model, scale=scale)
    found, delta = method.attribute(
        x, 1, tokens, n_steps=steps, return_convergence_delta=True
    )
    close(found, sum(e.sum((1, 2)) for e in expected))
    close(delta, sum(e.sum((1, 2, 3)) for e in expected) - due)
    close(method.compute_convergence_delta(found, x, 1, tokens), delta)
    if tokens is not None:
        assert not found[~tokens].any()

    rows, each = torch.randint(x.shape[1], (len(x),)), torch.arange(len(x))
    method = IntegratedAttentionGradient(model, scale=scale, heads=[-1])
    found, of_all = method.attribute(
        x, 1, tokens, steps, return_convergence_delta=True, query=rows
    )
    close(found, sum(e[each, -1, rows] for e in expected))
    close(of_all, delta)
    last = method.attribute(x, 1, tokens, n_steps=steps, query=-1)
    close(last, sum(e[:, -1, -1] for e in expected))


@pytest.mark.parametrize("scale", SCALES)
def test_completeness_is_met_as_steps_grow(scale: str) -> None:
    torch.manual_seed(0)
    model = Encoder(3, 2).double().eval()
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    method = IntegratedAttentionGradient(model, scale=scale)

    def delta(n_steps: int, rule: str = "gausslegendre") -> float:
        found = method.attribute(
            x, 1, n_steps=n_steps, method=rule, return_convergence_delta=True
        )
        return float(found[1].abs().max())

    assert delta(1) > 1e-3
    assert delta(2) < delta(1)
    assert delta(8) < 1e-8
    for rule, order in (
        ("riemann_left", 1),
        ("riemann_right", 1),
        ("riemann_middle", 2),
    ):
        rate = math.log(delta(10, rule) / delta(40, rule), 4)
        assert order - 0.2 < rate < order + 0.2, rule
    assert delta(200, "riemann_trapezoid") < delta(20, "riemann_trapezoid") / 5


def test_each_call_by_itself_is_each_layer_by_itself() -> None:
    torch.manual_seed(0)
    model = Encoder(3, 2).double().eval()
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    alone = [
        IntegratedAttentionGradient(model, layer).attribute(
            x, 1, n_steps=12, return_convergence_delta=True
        )
        for layer in model.layers
    ]
    assert all(float(delta.abs().max()) < 1e-9 for _, delta in alone)
    found = IntegratedAttentionGradient(model, scale="one").attribute(x, 1, n_steps=12)
    close(found, sum(scores for scores, _ in alone))
    together = IntegratedAttentionGradient(model).attribute(x, 1, n_steps=12)
    assert float((found - together).abs().max()) > 1e-3


def test_a_linear_model_by_hand() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            alike = torch.zeros_like(x)
            return F.scaled_dot_product_attention(alike, alike, x)[:, 0].sum(-1)

    x = torch.randn(3, 4, WIDTH, dtype=torch.float64)
    method = IntegratedAttentionGradient(Mean())
    # Without attention the score is 0; each token adds a quarter of its values. Any
    # rule is exact, also one that starts at alpha = 0.
    for rule in ("gausslegendre", "riemann_left", "riemann_middle"):
        found, delta = method.attribute(
            x, n_steps=3, method=rule, return_convergence_delta=True
        )
        close(found, x.sum(-1) / 4)
        close(delta, torch.zeros(3, dtype=torch.float64))
    times_gradient = AttentionGradient(Mean(), multiply_by_attention=True)
    close(found, times_gradient.attribute(x))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "target",
    [2, [0, 1, 2, 0], torch.tensor([0, 1, 2, 0]), torch.tensor(1), torch.tensor([1])],
)
def test_steps_in_one_batch_or_in_chunks(scale: str, target: object) -> None:
    model = classifier()
    ids, mask = token_ids()
    method = IntegratedAttentionGradient(model, scale=scale)
    method.attribute(ids, target, mask, n_steps=1)  # the layout is proved once
    batches = []
    model.head.register_forward_hook(lambda *args: batches.append(len(args[2])))
    whole = method.attribute(ids, target, mask, n_steps=5)
    calls = 2 if scale == "one" else 1
    assert batches == [4, 4 * 5 * calls]
    for size in (4, 11, 100):
        batches.clear()
        close(method.attribute(ids, target, mask, 5, internal_batch_size=size), whole)
        assert max(batches) <= size
    with pytest.warns(UserWarning, match="internal_batch_size=3 is less than"):
        small = method.attribute(ids, target, mask, n_steps=5, internal_batch_size=3)
    close(small, whole)
    (of_tuple,) = method.attribute((ids,), target, mask, n_steps=5)
    close(of_tuple, whole)


def test_a_loss() -> None:
    model = classifier()
    ids, mask = token_ids()
    labels = torch.tensor([0, 1, 2, 0])
    method = IntegratedAttentionGradient(model, loss_func=F.cross_entropy)
    found, delta = method.attribute(ids, labels, mask, return_convergence_delta=True)
    assert float(delta.abs().max()) < 1e-9
    of_log = IntegratedAttentionGradient(
        lambda *inputs: model(*inputs).log_softmax(-1), model.layers
    )
    close(of_log.attribute(ids, labels, mask), found)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("frozen", [False, True])
def test_every_way_to_write_attention_out(form, frozen: bool) -> None:
    torch.manual_seed(0)
    model = WrittenOut(form).double().eval()
    x = torch.randn(3, 4, WIDTH, dtype=torch.float64)
    model(x)  # gives the lazy layer its size
    model.requires_grad_(not frozen)
    if form.__name__ == "masked_afterwards":
        return  # divides by the sum of its weights, so that scaling them does nothing
    method = IntegratedAttentionGradient(model)
    found, delta = method.attribute(x, 0, n_steps=24, return_convergence_delta=True)
    assert float(delta.abs().max()) < 1e-6  # one form goes through float32
    assert float(found.abs().min()) > 1e-5
    chunked = method.attribute(x, 0, n_steps=24, internal_batch_size=3)
    torch.testing.assert_close(chunked, found, rtol=1e-6, atol=1e-7)


def test_a_softmax_that_is_no_attention_is_left_alone() -> None:
    class Gated(nn.Module):
        """A gate over features before and after the attention."""

        def __init__(self) -> None:
            super().__init__()
            self.gate, self.mix = (nn.Linear(WIDTH, WIDTH) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = self.mix(x * self.gate(x).softmax(-1))
            x = (x @ x.mT).softmax(-1) @ x
            return (x * self.gate(x).softmax(-1)).sum((1, 2))

    torch.manual_seed(0)
    model, x = Gated().double(), torch.randn(2, 3, WIDTH, dtype=torch.float64)
    found, delta = IntegratedAttentionGradient(model).attribute(
        x, return_convergence_delta=True
    )
    # Without attention nothing is left of the input, whatever the gates say.
    close(found.sum(1), model(x).detach())
    close(delta, torch.zeros(2, dtype=torch.float64))


def test_replicas_take_one_step_at_a_time() -> None:
    model = classifier()
    ids, mask = token_ids()
    for scale in SCALES:
        expected = IntegratedAttentionGradient(model, scale=scale).attribute(
            ids, [0, 1, 2, 0], mask, 3, return_convergence_delta=True
        )
        method = IntegratedAttentionGradient(Replicated(model, 2), scale=scale)
        found = method.attribute(
            ids, [0, 1, 2, 0], mask, 3, return_convergence_delta=True
        )
        for ours, theirs in zip(found, expected, strict=True):
            close(ours, theirs)


def test_captums_tools_and_conventions() -> None:
    model = classifier(embed=False)
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    method = IntegratedAttentionGradient(model)
    assert method.has_convergence_delta() is True
    assert method.multiplies_by_inputs is True
    assert method.get_name() == "Integrated Attention Gradient"
    plain, delta = method.attribute(x, 1, n_steps=3, return_convergence_delta=True)
    quiet, deltas = NoiseTunnel(method).attribute(
        x, nt_samples=2, stdevs=0.0, target=1, n_steps=3, return_convergence_delta=True
    )
    close(quiet, plain)
    close(deltas, delta.repeat_interleave(2))
    with torch.inference_mode():
        close(method.attribute(x.clone(), 1, n_steps=3), plain)


def test_one_step_at_a_time_inside_inference_mode() -> None:
    model, (ids, _) = classifier(), token_ids()
    method = IntegratedAttentionGradient(model)
    expected = method.attribute(ids, 1, n_steps=3)
    with torch.inference_mode():
        found = method.attribute(ids.clone(), 1, n_steps=3, internal_batch_size=4)
    close(found.clone(), expected)


def test_half_precision_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model, x = Encoder(2, 2).eval(), torch.randn(2, 4, WIDTH)
    expected = IntegratedAttentionGradient(model).attribute(x, 1)
    half = IntegratedAttentionGradient(model.bfloat16())
    found = half.attribute(x.bfloat16(), 1, internal_batch_size=4, show_progress=True)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05)
    assert "Integrated Attention Gradient attribution" in capsys.readouterr().err


@pytest.mark.parametrize("scale", SCALES)
def test_no_tensor_with_queries_and_keys(scale: str) -> None:
    length = 512
    model, x = Encoder(2, 1).eval(), torch.randn(1, length, WIDTH)
    method = IntegratedAttentionGradient(model, scale=scale)
    with Sizes() as sizes:
        method.attribute(x, 1, n_steps=2, return_convergence_delta=True)
    assert length * WIDTH * 4 <= sizes.largest < length * length


def test_bad_input() -> None:
    model = classifier()
    ids, _ = token_ids()
    with pytest.raises(ValueError, match="scale='all' is unknown"):
        IntegratedAttentionGradient(model, scale="all")
    method = IntegratedAttentionGradient(model)
    with pytest.raises(ValueError, match=r"method='simpson' is unknown.*riemann_left"):
        method.attribute(ids, 1, method="simpson")
    with pytest.raises(
        ValueError, match=r"n_steps=1: expected .* at least 2 for riemann_left"
    ):
        method.attribute(ids, 1, n_steps=1, method="riemann_left")
    with pytest.raises(
        ValueError, match=r"n_steps=0: expected .* at least 1 for gausslegendre"
    ):
        method.attribute(ids, 1, n_steps=0)
    with pytest.raises(ValueError, match="query=7 is out of range"):
        method.attribute(ids, 1, query=7)
    some = IntegratedAttentionGradient(model, heads=[0])
    with pytest.raises(ValueError, match="heads are not complete"):
        some.compute_convergence_delta(torch.zeros(4, 5), ids, 1)
    inputs = (torch.randn(2, 3, 8), torch.randn(2, 5, 8))
    with pytest.raises(ValueError, match="cannot be summed"):
        IntegratedAttentionGradient(CrossAndSelf().eval()).attribute(inputs, 1)

    class MixesExamples(Encoder):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[: len(x) // len(x)]).expand(len(x), -1)

    with pytest.raises(ValueError, match="which of the 2 examples"):
        IntegratedAttentionGradient(MixesExamples(1, 1)).attribute(
            torch.randn(2, 3, WIDTH), 1
        )


def test_calls_that_depend_on_the_attention() -> None:
    class Early(nn.Module):
        """Attends once more if the first time brought something."""

        def forward(self, x: Tensor) -> Tensor:
            first = F.scaled_dot_product_attention(x, x, x)
            if float(first.detach().abs().sum()) > 10.0:
                first = first + fused(x, x, first, None)
            return first.sum((1, 2))

    x = torch.ones(1, 3, WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match=r"\(1 in place of 2"):
            IntegratedAttentionGradient(Early()).attribute(x, internal_batch_size=1)
