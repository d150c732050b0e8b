"""The built-in methods on a model whose true explanation is known."""

import sys
from collections.abc import Iterator

import pytest
import torch
from captum.attr import Lime
from torch import Tensor

from captum_attngrad.evaluation import (
    Method,
    TextBatch,
    TextModel,
    available_methods,
    register_method,
)
from captum_attngrad.evaluation import registry as registry_module
from captum_attngrad.evaluation.methods import perturbations
from captum_attngrad.evaluation.registry import resolve_methods
from tests.evaluation.planted import PlantedModel, planted_text_model

BUILT_IN = (
    "attention_gradient",
    "attention_x_gradient",
    "attention_gradient_centered",
    "attention_x_gradient_centered",
    "integrated_attention_gradient",
    "joint_integrated_gradients",
    "attention_deep_lift",
    "attention_deep_lift_joint",
    "attention_weights",
    "attention_rollout",
    "attention_relevance",
    "attention_relevance_signed",
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "integrated_gradients_zero",
    "gradient_shap",
    "deep_lift",
    "lime",
    "kernel_shap",
    "shapley_value_sampling",
    "occlusion",
    "feature_ablation",
    "leave_one_out",
    "random",
)
WITHOUT_SIGN = ("attention_weights", "saliency", "random")
# The planted attention has one query, and its softmax is no module.
NOT_HERE = (
    "attention_rollout",
    "attention_relevance",
    "attention_relevance_signed",
    "deep_lift",
)
RUN = tuple(name for name in BUILT_IN if name not in NOT_HERE)
# Zero embeddings are also the planted model's <unk>, but centered gradients compare
# with the mean word, and so have other signs for words that matter less than it.
SIGNED = tuple(
    name for name in RUN if name not in WITHOUT_SIGN and "centered" not in name
)
TEXTS = ["film good the good bad plot", "bad film", "plot fine the unheard actor"]


@pytest.fixture
def text_model() -> Iterator[TextModel]:
    text_model = planted_text_model()
    with text_model.evaluation_mode():
        yield text_model


def probability(text_model: TextModel, batch: TextBatch, ids: Tensor) -> Tensor:
    """Of the class that the model predicts for the batch as it is."""
    with torch.no_grad():
        full = text_model.probabilities(batch.input_ids, batch.attention_mask)
        p = text_model.probabilities(ids, batch.attention_mask)
    return p.gather(1, full.argmax(dim=1, keepdim=True)).squeeze(1)


def scores_of(name: str, text_model: TextModel, batch: TextBatch) -> Tensor:
    (method,) = resolve_methods([name])
    with torch.no_grad():
        p = text_model.probabilities(batch.input_ids, batch.attention_mask)
    return method.function(text_model, batch, p.argmax(dim=1)).double()


def true_weights(batch: TextBatch) -> tuple[Tensor, Tensor]:
    """Attention weights and word values of the planted model, by hand."""
    table = PlantedModel().embedding.weight.detach().double()
    embedded = table[batch.input_ids]
    masked = embedded[..., 0].masked_fill(~batch.attention_mask, -torch.inf)
    return masked.softmax(dim=1), embedded[..., 1]


def test_built_in_methods_in_their_order() -> None:
    assert available_methods()[: len(BUILT_IN)] == BUILT_IN


@pytest.mark.parametrize("name", SIGNED)
def test_signs_of_the_words(name: str, text_model: TextModel) -> None:
    scores = scores_of(name, text_model, text_model.batch(TEXTS, [1, 2, 3]))
    assert scores.shape == (3, 6)
    assert bool((scores[0, [1, 3]] > 0).all())  # good, good: for positive
    assert scores[0, 4] < 0  # bad: against positive
    assert scores[1, 0] > 0  # bad: for negative, which is predicted here
    assert scores[2, 1] > 0  # fine


@pytest.mark.parametrize("multiply", [False, True])
def test_attention_gradient_by_hand(multiply: bool, text_model: TextModel) -> None:
    batch = text_model.batch(TEXTS)
    weights, values = true_weights(batch)
    p = probability(text_model, batch, batch.input_ids)
    # p is the sigmoid of plus or minus the weighted sum of the values.
    sign = torch.tensor([1.0, -1.0, 1.0]).double()
    expected = (sign * p * (1 - p)).unsqueeze(1) * values * batch.attention_mask
    if multiply:
        expected = expected * weights
    name = "attention_x_gradient" if multiply else "attention_gradient"
    scores = scores_of(name, text_model, batch)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-7)


def test_attention_weights_by_hand(text_model: TextModel) -> None:
    batch = text_model.batch(TEXTS)
    scores = scores_of("attention_weights", text_model, batch)
    torch.testing.assert_close(scores, true_weights(batch)[0], rtol=1e-5, atol=1e-7)


def test_occlusion_is_leave_one_out(text_model: TextModel) -> None:
    batch = text_model.batch(TEXTS)
    scores = scores_of("occlusion", text_model, batch)
    full = probability(text_model, batch, batch.input_ids)
    for position in range(scores.shape[1]):
        ids = batch.input_ids.clone()
        ids[:, position] = text_model.replacement_id
        left = full - probability(text_model, batch, ids)
        torch.testing.assert_close(scores[:, position], left, rtol=0, atol=1e-6)


def test_integrated_gradients_add_up(text_model: TextModel) -> None:
    batch = text_model.batch(TEXTS)
    scores = scores_of("integrated_gradients", text_model, batch)
    baseline = batch.input_ids.masked_fill(
        batch.attributable, text_model.replacement_id
    )
    change = probability(text_model, batch, batch.input_ids) - probability(
        text_model, batch, baseline
    )
    torch.testing.assert_close(scores.sum(dim=1), change, rtol=0, atol=1e-3)


def test_lime_finds_the_effects_of_an_additive_model() -> None:
    # Each word moves the probability by a fixed amount: the surrogate is exact up to
    # its ridge penalty.
    text_model = planted_text_model()
    effects = torch.tensor([0, 0, 0.2, -0.1, 0.05, 0, 0, 0, 0]).double()

    def logits(ids: Tensor, mask: Tensor) -> Tensor:
        p = 0.5 + (effects[ids] * mask).sum(dim=1)
        return torch.stack([(1 - p).log(), p.log()], dim=1)

    additive = TextModel.from_torch(
        text_model.model,
        str.split,
        lambda tokens: text_model.encode([" ".join(tokens)]).input_ids[0].tolist(),
        embedding=text_model.embedding,
        forward_func=logits,
    )
    batch = additive.batch(["good film bad fine"], [5])
    scores = scores_of("lime", additive, batch)
    expected = torch.tensor([[0.2, 0.0, -0.1, 0.05]]).double()
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.01)


def test_lime_is_captums_on_the_same_samples(text_model: TextModel) -> None:
    linear_model = pytest.importorskip("captum._utils.models.linear_model")
    pytest.importorskip("sklearn")
    batch = text_model.batch(TEXTS[:1], [5])
    ids = batch.input_ids
    generator = torch.Generator().manual_seed(5)
    half = torch.full((perturbations.LIME_SAMPLES, ids.shape[1]), 0.5)
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(generator.get_state())
        rows = torch.bernoulli(half).long().split(1)

    def samples(inputs: Tensor, **options: object) -> Iterator[Tensor]:
        yield from rows

    def similarity(_: Tensor, __: Tensor, kept: Tensor, **options: object) -> Tensor:
        whole = torch.ones_like(kept, dtype=torch.float64)
        cosine = torch.cosine_similarity(kept.double(), whole)
        return torch.exp(-((1 - cosine) ** 2) / (2 * 0.25**2))

    with torch.no_grad():
        target = text_model.probabilities(ids, batch.attention_mask).argmax(dim=1)
    expected = Lime(
        lambda changed: text_model.probabilities(
            changed, batch.attention_mask.expand(len(changed), -1)
        ),
        linear_model.SkLearnRidge(alpha=1.0),
        similarity,
        samples,
    ).attribute(
        ids,
        target=target,
        baselines=text_model.replacement_id,
        n_samples=perturbations.LIME_SAMPLES,
        perturbations_per_eval=100,
    )
    scores = scores_of("lime", text_model, batch)
    torch.testing.assert_close(scores, expected.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", RUN)
def test_a_text_scores_the_same_alone_and_in_a_batch(
    name: str, text_model: TextModel
) -> None:
    together = scores_of(name, text_model, text_model.batch(TEXTS, [1, 2, 3]))
    for row, text in enumerate(TEXTS):
        batch = text_model.batch([text], [row + 1])
        alone = scores_of(name, text_model, batch)[0]
        torch.testing.assert_close(
            together[row, : len(alone)], alone, rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("name", ["lime", "random"])
def test_seeds_decide_and_the_global_generator_is_left_alone(
    name: str, text_model: TextModel
) -> None:
    before = torch.get_rng_state()
    first, again, other = (
        scores_of(name, text_model, text_model.batch(TEXTS[:1], [seed]))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_confident_model_still_has_gradients(text_model: TextModel) -> None:
    # Log-odds of about 26: in float32 the probability would be exactly 1.
    assert isinstance(text_model.model, PlantedModel)
    with torch.no_grad():
        text_model.model.embedding.weight[2, 1] = 26.0
    batch = text_model.batch(["good good film"])
    scores = scores_of("attention_gradient", text_model, batch)
    assert scores[0, 0] > 0


def test_a_method_of_ones_own(
    text_model: TextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_REGISTRY", dict(registry_module._REGISTRY))
    method = register_method(
        Method("zeros", lambda model, batch, target: torch.zeros(1, 2), "nothing")
    )
    assert available_methods()[-1] == "zeros"
    assert resolve_methods(["zeros", "random"])[0] is method
    with pytest.raises(ValueError, match="'zeros' is registered already"):
        register_method(method)


def test_unknown_and_repeated_names_are_named() -> None:
    with pytest.raises(ValueError, match=r"no method named 'shap'.*attention_gradient"):
        resolve_methods(["shap"])
    with pytest.raises(ValueError, match="'random' was given twice"):
        resolve_methods(["random", "random"])
    with pytest.raises(ValueError, match="methods is empty"):
        resolve_methods([])


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"'kernel_shap' needs sklearn.*\[compare\]"):
        resolve_methods(["kernel_shap"])
