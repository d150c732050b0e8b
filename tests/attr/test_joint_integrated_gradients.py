"""Joint integrated gradients, against the integral of its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad import AttentionDeepLift, JointIntegratedGradients, log_odds
from captum_attngrad.models import AttentionLSTMClassifier
from tests.attr.encoder import WIDTH, Encoder, close, encoders, fused, written_out
from tests.attr.surroundings import Replicated
from tests.attr.test_integrated_attention_gradient import ScaledAttention

WORDS = 11


class Classifier(nn.Module):
    """Token ids to logits, with an embedding below the encoder."""

    def __init__(self, encoder: Encoder, positions: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.positions = positions  # something between embedding and attention
        self.encoder = encoder

    def forward(self, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
        x = self.embedding(ids)
        if self.positions:
            x = (x + torch.arange(ids.shape[1]).unsqueeze(1) / 7).tanh()
        return self.encoder(x, tokens)


@st.composite
def classifiers(draw: st.DrawFn):
    encoder, x, tokens = draw(encoders())
    frozen = not next(encoder.parameters()).requires_grad
    model = Classifier(encoder, draw(st.booleans())).double().eval()
    model.requires_grad_(not frozen)
    ids = torch.randint(1, WORDS, x.shape[:2])
    return model, ids, tokens


def definition(model, ids, baselines, tokens, target, steps) -> tuple[Tensor, Tensor]:
    """By autograd on explicit embeddings and scaled weights, one point at a time."""
    before = model.encoder.layers[0].attend
    text, masked = (model.embedding(i).detach() for i in (ids, baselines))
    layers = len(model.encoder.layers)

    def run(t: float):
        attend = ScaledAttention([t] * layers)
        model.encoder.attending(attend)
        vectors = (masked + t * (text - masked)).requires_grad_()
        handle = model.embedding.register_forward_hook(lambda *_: vectors)
        score = model(ids, tokens)[:, target]
        handle.remove()
        model.encoder.attending(before)
        return attend, vectors, score

    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros(ids.shape, dtype=torch.float64)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        attend, vectors, score = run(node)
        by_vectors, *by_weights = torch.autograd.grad(
            score.sum(), [vectors, *attend.scaled]
        )
        total += weight * (by_vectors * (text - masked)).sum(-1)
        for a, g in zip(attend.weights, by_weights, strict=True):
            total += weight * (a * g).detach().sum((1, 2))
    return total, (run(1.0)[2] - run(0.0)[2]).detach()


@given(classifiers(), st.integers(1, 4), st.sampled_from([None, 1, 7]))
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(case, steps: int, rows: int | None) -> None:
    model, ids, tokens = case
    baselines = torch.zeros_like(ids)
    expected, due = definition(model, ids, baselines, tokens, 1, steps)
    method = JointIntegratedGradients(model, embedding=model.embedding)
    found, delta = method.attribute(
        ids,
        baselines,
        1,
        tokens,
        n_steps=steps,
        internal_batch_size=None if rows is None else rows * len(ids),
        return_convergence_delta=True,
    )
    close(found, expected)
    close(delta, expected.sum(1) - due)


def example(attend=fused, **options) -> tuple[Classifier, Tensor]:
    torch.manual_seed(3)
    model = Classifier(Encoder(2, 2, attend, **options), positions=True)
    return model.double().eval(), torch.randint(1, WORDS, (2, 6))


@pytest.mark.parametrize("attend", [fused, written_out])
def test_delta_vanishes_and_scores_are_complete(attend) -> None:
    model, ids = example(attend)
    method = JointIntegratedGradients(model, embedding=model.embedding)
    deltas = [
        method.attribute(ids, target=2, n_steps=n, return_convergence_delta=True)[1]
        for n in (2, 30)
    ]
    assert deltas[0].abs().max() > 1e-6
    assert deltas[1].abs().max() < 1e-10


def test_without_influence_of_attention_it_is_integrated_gradients() -> None:
    """One layer whose attention adds nothing: only the vectors' share is left."""
    model, ids = example()
    for layer in model.encoder.layers:
        nn.init.zeros_(layer.out.weight)
    found = JointIntegratedGradients(model, embedding=model.embedding).attribute(
        ids, 0, 1, n_steps=8
    )
    ig = LayerIntegratedGradients(model, model.embedding).attribute(
        ids, torch.zeros_like(ids), 1, n_steps=8
    )
    # Captum keeps the weights of its steps in float32.
    torch.testing.assert_close(found, ig.sum(-1), rtol=1e-6, atol=1e-7)


def test_a_token_that_is_the_baseline_everywhere_gets_attention_share_only() -> None:
    model, ids = example()
    baselines = ids.clone()
    baselines[:, 2:] = 0
    expected, _ = definition(model, ids, baselines, None, 0, 3)
    method = JointIntegratedGradients(model, embedding=model.embedding)
    close(method.attribute(ids, baselines, 0), expected)


def test_recurrent_model_with_additive_attention() -> None:
    torch.manual_seed(0)
    model = AttentionLSTMClassifier(20, 2).double().eval()
    ids = torch.randint(1, 20, (3, 7))
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = False
    method = JointIntegratedGradients(model, embedding=model.embedding)
    scores, delta = method.attribute(
        ids,
        target=1,
        additional_forward_args=mask,
        n_steps=40,
        return_convergence_delta=True,
    )
    assert scores.shape == (3, 7)
    assert (scores[1, 4:] == 0).all()
    assert delta.abs().max() < 1e-8


def test_tuple_in_tuple_out_and_state_is_restored() -> None:
    model, ids = example()
    model.train()
    model.requires_grad_(True)
    before = torch.is_grad_enabled()
    method = JointIntegratedGradients(model, embedding=model.embedding)
    (scores,) = method.attribute((ids,), target=0)
    with torch.no_grad():
        close(method.attribute(ids, target=0), scores)
    assert model.training
    assert torch.is_grad_enabled() == before
    assert all(p.grad is None for p in model.parameters())
    assert not model.embedding._forward_hooks
    assert not scores.requires_grad


def test_inside_inference_mode() -> None:
    model, ids = example()
    method = JointIntegratedGradients(model, embedding=model.embedding)
    expected = method.attribute(ids, target=0)
    with torch.inference_mode():
        found = method.attribute(ids, target=0)
    close(found.clone(), expected)


@pytest.mark.parametrize(
    ("embedding_of", "error", "message"),
    [
        (lambda model: "embedding", TypeError, "'embedding'"),
        (lambda model: nn.Identity(), ValueError, "Identity was called 0 times"),
        (lambda model: model.encoder, ValueError, r"shape \(2, 3\)"),
    ],
    ids=["no module", "not called", "not tokens"],
)
def test_bad_embeddings(embedding_of, error, message: str) -> None:
    model, ids = example()
    with pytest.raises(error, match=message):
        JointIntegratedGradients(model, embedding=embedding_of(model)).attribute(
            ids, target=0
        )


def test_keys_must_be_the_tokens() -> None:
    class Shortened(Classifier):
        def forward(self, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
            return self.encoder(self.embedding(ids)[:, :4], tokens)

    model, ids = example()
    shortened = Shortened(model.encoder).double()
    method = JointIntegratedGradients(shortened, embedding=shortened.embedding)
    with pytest.raises(ValueError, match="4 keys, and the embedding has 6 tokens"):
        method.attribute(ids, target=0)


def test_baselines_of_another_length() -> None:
    model, ids = example()
    method = JointIntegratedGradients(model, embedding=model.embedding)
    message = r"baselines have shape \(2, 4\), and the inputs have shape \(2, 6\)"
    with pytest.raises(ValueError, match=message):
        method.attribute(ids, ids[:, :4], 0)


def test_baselines_in_every_form() -> None:
    model, ids = example()
    method = JointIntegratedGradients(model, embedding=model.embedding)
    expected = method.attribute(ids, torch.full_like(ids, 2), 0)
    for given_as in (2, 2.0, (2,), torch.full((1, 6), 2), (torch.full((2, 6), 2),)):
        close(method.attribute(ids, given_as, 0), expected)
    close(method.attribute(ids, None, 0), method.attribute(ids, 0, 0))


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        (0.5, r"baselines=0\.5, and the inputs are torch\.int64: expected a whole"),
        (float("nan"), "baselines=nan, and the inputs are"),
        (True, r"baselines=True \(bool\): expected None, a number"),
        ("mask", r"baselines='mask' \(str\)"),
        (torch.zeros(2, 6), r"baselines are torch\.float32, and the inputs are torch"),
        (torch.zeros(3, 6).long(), r"baselines have shape \(3, 6\)"),
        ((0, 0), "There are 2 baselines for 1 inputs"),
    ],
)
def test_bad_baselines(baselines: object, message: str) -> None:
    model, ids = example()
    for kind in (JointIntegratedGradients, AttentionDeepLift):
        method = kind(model, embedding=model.embedding)
        with pytest.raises(ValueError, match=message):
            method.attribute(ids, baselines, 0)


def test_other_bad_input() -> None:
    model, ids = example()
    method = JointIntegratedGradients(model, embedding=model.embedding)
    with pytest.raises(ValueError, match="n_steps=0"):
        method.attribute(ids, target=0, n_steps=0)
    with pytest.raises(ValueError, match="simpson"):
        method.attribute(ids, target=0, method="simpson")
    with pytest.raises((AssertionError, IndexError, ValueError)):
        method.attribute(ids, target=9)
    with pytest.raises(NotImplementedError, match="several devices"):
        JointIntegratedGradients(
            Replicated(model, 2), model, embedding=model.embedding
        ).attribute(ids, target=0)
    assert not model.embedding._forward_hooks


def test_log_odds() -> None:
    logits = torch.tensor([[1.0, -0.5, 2.0], [0.0, 9.0, -3.0]], dtype=torch.float64)
    p = logits.softmax(-1)
    torch.testing.assert_close(log_odds(logits), p.log() - (1 - p).log())
    torch.testing.assert_close(log_odds(logits + 5), log_odds(logits))
    two = torch.tensor([2.0, 0.5])
    torch.testing.assert_close(log_odds(two), torch.tensor([1.5, -1.5]))
    for bad in (torch.zeros(3, 1), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="at least two classes"):
            log_odds(bad)
