"""What Captum users take for granted, and that nothing of the model is changed."""

from __future__ import annotations

import inspect
import sys

import pytest
import torch
import torch.nn.functional as F
from captum.attr import GradientAttribution, LayerAttribution, NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from captum_attngrad import AttentionGradient, LayerAttentionGradient
from tests.attr.models import Classifier, classifier, token_ids
from tests.attr.surroundings import Replicated, state, unchanged

try:
    from captum.testing.helpers.basic import assertTensorAlmostEqual
except ModuleNotFoundError:  # captum 0.8

    def assertTensorAlmostEqual(  # noqa: N802
        _: object, actual: Tensor, expected: Tensor, delta: float, mode: str
    ) -> None:
        torch.testing.assert_close(actual, expected, rtol=0, atol=delta)


BOTH = [AttentionGradient, LayerAttentionGradient]


class _Case:
    """Captum's assertions are made for unittest."""

    def assertAlmostEqual(self, a: float, b: float, delta: float) -> None:  # noqa: N802
        assert abs(a - b) <= delta


def same(found: Tensor | list[Tensor], expected: Tensor | list[Tensor]) -> None:
    found = found if isinstance(found, list) else [found]
    expected = expected if isinstance(expected, list) else [expected]
    for ours, theirs in zip(found, expected, strict=True):
        assertTensorAlmostEqual(_Case(), ours, theirs, delta=1e-12, mode="max")


@pytest.mark.parametrize("method", BOTH)
def test_is_a_captum_attribution(method: type) -> None:
    model = classifier()
    assert issubclass(method, LayerAttribution)
    assert issubclass(method, GradientAttribution)
    assert method(model).has_convergence_delta() is False
    assert method(model).multiplies_by_inputs is False
    assert method(model, multiply_by_attention=True).multiplies_by_inputs is True
    assert method.attribute.__wrapped__  # NoiseTunnel and TCAV call it
    assert method.get_name().endswith("Attention Gradient")
    names = list(inspect.signature(method.attribute).parameters)
    assert names[:4] == ["self", "inputs", "target", "additional_forward_args"]
    names = list(inspect.signature(method).parameters)
    assert names[:3] == ["forward_func", "layer", "device_ids"]


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize(
    ("classes", "target", "one_by_one"),
    [
        ((3,), 2, [2, 2, 2, 2]),
        ((3,), torch.tensor(1), [1, 1, 1, 1]),
        ((3,), torch.tensor([1]), [1, 1, 1, 1]),
        ((3,), [0, 1, 2, 0], [0, 1, 2, 0]),
        ((3,), torch.tensor([0, 1, 2, 0]), [0, 1, 2, 0]),
        ((3, 2), (2, 1), [(2, 1)] * 4),
        ((3, 2), [(0, 1), (1, 0), (2, 1), (2, 0)], [(0, 1), (1, 0), (2, 1), (2, 0)]),
        ((), None, [None] * 4),
        ((1,), 0, [0, 0, 0, 0]),
    ],
)
def test_targets_in_every_form(method, classes, target, one_by_one) -> None:
    attribution = method(classifier(classes))
    ids, mask = token_ids()
    found = attribution.attribute(ids, target, mask)
    each = [
        attribution.attribute(ids[i : i + 1], t, mask[i : i + 1])
        for i, t in enumerate(one_by_one)
    ]
    if method is AttentionGradient:
        same(found, torch.cat(each))
    else:
        same(found, [torch.cat(layer) for layer in zip(*each, strict=True)])


def test_tensor_in_tensor_out_and_tuple_in_tuple_out() -> None:
    model = classifier()
    ids, mask = token_ids()
    expected = AttentionGradient(model).attribute(ids, 1, mask)
    assert isinstance(expected, Tensor)
    for inputs, rest in (((ids,), (mask,)), ((ids, mask), None)):
        found = AttentionGradient(model).attribute(inputs, 1, rest)
        assert isinstance(found, tuple)
        same(list(found), [expected])
        # What a layer method returns depends on the layer alone, as in Captum.
        maps = LayerAttentionGradient(model, model.layers[0])
        assert isinstance(maps.attribute(inputs, 1, rest), Tensor)
    assert not expected[1, 3:].any()
    assert expected[~mask].numel() < expected.count_nonzero()


def test_layer_forms() -> None:
    model = classifier()
    ids, _ = token_ids()
    first, second = (
        LayerAttentionGradient(model, m).attribute(ids, 1) for m in model.layers
    )
    assert first.shape == (4, 2, 5, 5)
    same(
        LayerAttentionGradient(model, list(model.layers)).attribute(ids, 1),
        [first, second],
    )
    same(LayerAttentionGradient(model).attribute(ids, 1), [first, second])
    summed = (first + second).sum((1, 2))
    # Past the hooks of the model itself, its layers still run as modules.
    same(AttentionGradient(model.forward, model).attribute(ids, 1), summed)
    for layer in (None, model, model.layers, list(model.layers)):
        same(AttentionGradient(model, layer).attribute(ids, 1), summed)
    same(
        AttentionGradient(model, model.layers[1]).attribute(ids, 1), second.sum((1, 2))
    )
    # A nested choice counts each call once.
    nested = [model.layers, model.layers[0]]
    same(AttentionGradient(model, nested).attribute(ids, 1), summed)


def test_forward_func_may_be_any_function() -> None:
    model = classifier()
    ids, mask = token_ids()
    expected = AttentionGradient(model).attribute(ids, 1, mask)
    probability = AttentionGradient(
        lambda x, m: model(x, m).softmax(-1), list(model.layers)
    )
    score = AttentionGradient(lambda x, m: model(x, m)[:, 1], list(model.layers))
    same(score.attribute(ids, None, mask), expected)
    found = probability.attribute(ids, 1, mask)
    assert (found - expected).abs().max() > 1e-4


def test_logits_of_a_model_output() -> None:
    class Output:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    class HuggingFaceLike(Classifier):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Output:
            return Output(super().forward(x, mask))

    torch.manual_seed(0)
    model = HuggingFaceLike().double().eval()
    ids, mask = token_ids()
    expected = AttentionGradient(classifier()).attribute(ids, 1, mask)
    same(AttentionGradient(model).attribute(ids, 1, mask), expected)


# -- loss ----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_loss_is_explained_example_by_example(reduction: str) -> None:
    model = classifier()
    ids, mask = token_ids()
    labels = torch.tensor([0, 1, 2, 0])

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction=reduction)

    found = AttentionGradient(model, loss_func=loss).attribute(ids, labels, mask)
    # -loss is the log-probability of the label.
    log_p = AttentionGradient(
        lambda x, m: model(x, m).log_softmax(-1), list(model.layers)
    )
    same(found, log_p.attribute(ids, labels, mask))
    of_lists = AttentionGradient(model, loss_func=loss).attribute(
        ids, [0, 1, 2, 0], mask
    )
    same(of_lists, found)
    for_all = AttentionGradient(model, loss_func=loss)
    same(for_all.attribute(ids, 1, mask), log_p.attribute(ids, 1, mask))
    same(for_all.attribute(ids, torch.tensor(1), mask), log_p.attribute(ids, 1, mask))


def test_bad_losses() -> None:
    model = classifier()
    ids, _ = token_ids()
    method = AttentionGradient(model, loss_func=lambda o, t: o.logsumexp(0))
    with pytest.raises(ValueError, match=r"loss_func returned shape \(3,\) for 4"):
        method.attribute(ids, 1)
    method = AttentionGradient(model, loss_func=lambda o, t: 1.0)
    with pytest.raises(TypeError, match="loss_func returned float"):
        method.attribute(ids, 1)


# -- Captum's own tools --------------------------------------------------------------


def test_noise_tunnel() -> None:
    model = classifier(embed=False)
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    method = AttentionGradient(model)
    plain = method.attribute(x, 1)
    tunnel = NoiseTunnel(method)
    quiet = tunnel.attribute(x, nt_samples=3, stdevs=0.0, target=1)
    same(quiet, plain)
    noisy = tunnel.attribute(x, nt_samples=4, stdevs=0.5, target=[0, 1, 2, 0])
    assert noisy.shape == (4, 5)
    assert not torch.allclose(noisy, method.attribute(x, [0, 1, 2, 0]))


def test_sensitivity_max() -> None:
    model = classifier(embed=False)
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    method = AttentionGradient(model, multiply_by_attention=True)
    value = sensitivity_max(method.attribute, x, target=1, perturb_radius=0.02)
    assert value.shape == (4,)
    assert bool((value > 0).all())
    assert bool((value < 1).all())
    nothing = sensitivity_max(method.attribute, x, target=1, perturb_radius=0.0)
    assert float(nothing.max()) < 1e-12


class MeanOfValues(nn.Module):
    """Attends evenly, so that each token's share of the output is known exactly. The
    input is one factor per token, since infidelity multiplies scores by its changes."""

    def forward(self, factors: Tensor, values: Tensor) -> Tensor:
        values = values * factors.unsqueeze(-1)
        alike = torch.zeros_like(values)
        return F.scaled_dot_product_attention(alike, alike, values)[:, 0].sum(-1)


def test_infidelity_of_a_known_explanation() -> None:
    model = MeanOfValues()
    values = torch.randn(4, 5, 8, dtype=torch.float64)
    ones = torch.ones(4, 5, dtype=torch.float64)

    def perturb(factors: Tensor) -> tuple[Tensor, Tensor]:
        gone = (torch.rand_like(factors) < 0.3).to(factors.dtype)
        return gone, factors - gone

    def measure(scores: Tensor) -> Tensor:
        return infidelity(model, perturb, ones, scores, None, (values,))

    method = AttentionGradient(model, multiply_by_attention=True)
    scores = method.attribute(ones, None, values, query=0)
    same(scores, values.sum(-1) / 5)  # by hand: the mean of five values
    assert float(measure(scores).max()) < 1e-20
    assert float(measure(torch.randn_like(scores)).min()) > 1e-3


# -- threads, devices, modes ---------------------------------------------------------


@pytest.mark.parametrize("method", BOTH)
def test_replica_threads(method: type) -> None:
    model = classifier()
    ids, mask = token_ids()
    expected = method(model).attribute(ids, 1, mask)
    found = method(Replicated(model, 2)).attribute(ids, 1, mask)
    same(found, expected)
    chosen = method(Replicated(model, 4), list(model.layers))
    same(chosen.attribute(ids, 1, mask), expected)
    if method is AttentionGradient:
        rows = torch.tensor([0, 1, 2, 4])
        same(
            chosen.attribute(ids, 1, mask, query=rows),
            method(model).attribute(ids, 1, mask, query=rows),
        )


def test_data_parallel() -> None:
    model = classifier()
    ids, mask = token_ids()
    expected = AttentionGradient(model).attribute(ids, 1, mask)
    same(AttentionGradient(nn.DataParallel(model)).attribute(ids, 1, mask), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cuda(dtype: torch.dtype) -> None:
    model = classifier()
    ids, mask = token_ids()
    expected = AttentionGradient(model).attribute(ids, 1, mask)
    found = AttentionGradient(model.to("cuda", dtype)).attribute(
        ids.cuda(), 1, mask.cuda()
    )
    assert found.is_cuda
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(
        found.double().cpu(), expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", BOTH)
def test_inside_the_callers_modes(method: type, mode: type) -> None:
    model = classifier()
    ids, mask = token_ids()
    expected = method(model).attribute(ids, 1, mask)
    with mode():
        found = method(model).attribute(ids.clone(), 1, (mask & True,))
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
    same(found, expected)


def test_a_model_made_in_inference_mode() -> None:
    ids, _ = token_ids()
    with torch.inference_mode():
        model = Classifier()
        with pytest.raises(RuntimeError, match="outside inference_mode"):
            AttentionGradient(model).attribute(ids, 1)


def test_autocast() -> None:
    model = classifier().float()
    ids, mask = token_ids()
    for options in ({}, {"multiply_by_attention": True}, {"center": True}):
        method = AttentionGradient(model, **options)
        expected = method.attribute(ids, 1, mask)
        with torch.autocast("cpu", torch.bfloat16):
            found = method.attribute(ids, 1, mask)
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05)


@pytest.mark.skipif(
    torch.__version__.startswith("2.3.") and sys.version_info >= (3, 12),
    reason="torch 2.3 compiles nothing on Python 3.12",
)
def test_compiled_models_are_run_as_written() -> None:
    model = classifier()
    ids, mask = token_ids()
    expected = AttentionGradient(model).attribute(ids, 1, mask)
    compiled = torch.compile(model, backend="eager")
    same(AttentionGradient(compiled).attribute(ids, 1, mask), expected)
    same(AttentionGradient(compiled, compiled.layers).attribute(ids, 1, mask), expected)
    function = torch.compile(lambda x, m: model(x, m), backend="eager")
    same(AttentionGradient(function, model.layers).attribute(ids, 1, mask), expected)
    inside = classifier()
    inside.layers[0].compile(backend="eager")
    if hasattr(torch.compiler, "set_stance"):
        same(AttentionGradient(inside).attribute(ids, 1, mask), expected)
    else:
        with pytest.raises(RuntimeError, match=r"compiled with torch\.compile"):
            AttentionGradient(inside).attribute(ids, 1, mask)


# -- nothing is changed --------------------------------------------------------------


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("stop", [None, ValueError, KeyboardInterrupt])
def test_the_model_is_as_before(method, frozen, stop) -> None:
    model = classifier()
    ids, mask = token_ids()
    model(ids).sum().backward()
    model.requires_grad_(not frozen)
    if stop is not None:

        def fail(*_: object) -> None:
            raise stop("on the way")

        model.layers[1].out.register_forward_hook(fail)
    before = state(model)
    for layer in (None, model.layers[1], list(model.layers)):
        if method is LayerAttentionGradient and stop is not None and layer is None:
            continue
        if stop is None:
            method(model, layer).attribute(ids, 1, mask)
        else:
            with pytest.raises(stop, match="on the way"):
                method(model, layer).attribute(ids, 1, mask)
        unchanged(before, model)
    if stop is None:
        method(model).attribute(ids, [0, 1, 2, 0], mask)
        unchanged(before, model)


def test_inputs_keep_their_gradient_settings() -> None:
    model = classifier(embed=False)
    for wanted in (False, True):
        x = torch.randn(4, 5, 8, dtype=torch.float64, requires_grad=wanted)
        scores = AttentionGradient(model).attribute(x, 1)
        assert x.requires_grad is wanted
        assert x.grad is None
        assert not scores.requires_grad
