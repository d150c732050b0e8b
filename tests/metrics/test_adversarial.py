"""Attacks on tokens and embeddings, and what explanations do under them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from captum.metrics import sensitivity_max as captum_sensitivity_max
from torch import Tensor

from captum_attngrad.metrics import (
    AttackDetection,
    AttackLocalization,
    Batch,
    EmbeddingAttack,
    EmbeddingNoise,
    SensitivityMax,
    TokenAttack,
)
from captum_attngrad.metrics.functional import (
    detection_auroc,
    sensitivity_max,
    top_share,
)
from captum_attngrad.metrics.sensitivity.embedding_attack import (
    attack_embeddings,
    noise_like,
    temporary_words,
)
from captum_attngrad.metrics.sensitivity.token_attack import attack_tokens
from captum_attngrad.text.text_model import TextBatch, TextModel
from tests.metrics.known import (
    UNK,
    BagOfWords,
    PlantedAttention,
    batch_of,
    gradient_x_embedding,
    occlusion,
    planted_texts,
    predicted,
    random_scores,
    random_texts,
    text_model_of,
)


def problem(n: int = 40) -> tuple[TextModel, TextBatch, Tensor]:
    model = text_model_of(BagOfWords())
    batch = batch_of(random_texts(n))
    return model, batch, predicted(model, batch)


def test_detection_auroc_hand_computed() -> None:
    attacked = torch.tensor([0.5, 0.5, math.nan, 0.5])
    noise = torch.tensor([[0.1, 0.5, 0.9], [0.1, 0.2, 0.9], [0.1] * 3, [0.1] * 3])
    valid = torch.tensor([[True] * 3, [True, True, False], [True] * 3, [False] * 3])
    value = detection_auroc(attacked, noise, valid).tolist()
    assert value[:2] == [0.5, 1.0]  # (1 + ½ + 0) / 3 and (1 + 1) / 2
    assert math.isnan(value[2])
    assert math.isnan(value[3])


def test_top_share_hand_computed() -> None:
    scores = torch.tensor([[3.0, 9.0, 1.0, 99.0], [1.0, 2.0, 3.0, 99.0]])
    wanted = torch.tensor([[True, False, True, False], [False] * 4])
    mask = torch.tensor([[True, True, True, False]] * 2)
    value = top_share(scores, wanted, mask).tolist()
    assert value[0] == 0.5
    assert math.isnan(value[1])


def test_sensitivity_max_hand_computed() -> None:
    before = torch.tensor([[3.0, 4.0, 7.0]])
    again = torch.tensor([[[3.0, 4.0, 0.0], [0.0, 8.0, 7.0]]])
    mask = torch.tensor([[True, True, False]])
    assert sensitivity_max(before, again, mask).item() == 1.0  # |(-3, 4)| / |(3, 4)|
    assert sensitivity_max(before * 0, again, mask).item() == 8.0


def test_attack_on_one_word_finds_the_best_neighbor() -> None:
    """A text of one word: of its topic, the one that speaks most for the other side."""
    model = text_model_of(BagOfWords())
    weights = model.embedding.get_parameter("weight").detach()[:, 0]
    word = 2 + int(weights[2:].argmax())
    batch = batch_of([[word]])
    attacked = attack_tokens(
        model, batch, torch.tensor([1]), max_fraction=1.0, n_neighbors=8
    )
    topic = [i for i in range(2, 40) if i % 4 == word % 4]
    assert attacked.item() == min(topic, key=lambda i: float(weights[i]))


def test_substitutions_that_do_not_help_are_not_made() -> None:
    module = BagOfWords()
    with torch.no_grad():
        module.embedding.weight[2:, 0].abs_()
    weights = module.embedding.weight[:, 0].tolist()
    words = range(3, 40, 4)
    worst = min(words, key=lambda i: weights[i])
    best = max(words, key=lambda i: weights[i])
    model = text_model_of(module)
    batch = batch_of([[worst, worst], [best, worst]])
    ids = attack_tokens(model, batch, torch.tensor([1, 1]), 1.0, n_neighbors=9)
    assert ids.tolist() == [[worst, worst], [worst, worst]]


def test_attack_stays_within_its_rules() -> None:
    model, batch, target = problem(60)
    for fraction in (0.1, 0.5):
        ids = attack_tokens(model, batch, target, fraction, n_neighbors=8)
        changed = ids != batch.input_ids
        assert not bool((changed & ~batch.attributable).any())
        budget = (fraction * batch.attributable.sum(dim=1) - 1e-9).ceil()
        assert bool((changed.sum(dim=1) <= budget).all())
        assert bool((ids[changed] > UNK).all())
        assert bool(((ids - batch.input_ids) % 4 == 0).all())  # same topic: neighbors
    # Every substitution helped: the class is nowhere more probable than before.
    p = model.probabilities(batch.input_ids, batch.attention_mask)
    after = model.probabilities(ids, batch.attention_mask)
    assert bool(((after - p).gather(1, target.unsqueeze(1)) <= 1e-12).all())


def test_attack_succeeds_where_random_substitutions_do_not() -> None:
    model, batch, target = problem(60)
    attack = TokenAttack(max_fraction=0.3, n_neighbors=8)
    found = attack.prepare(Batch(model, batch, target))
    after = predicted(model, replace(batch, input_ids=found.input_ids))
    assert torch.equal(found.success, after != target)
    assert torch.equal(found.new_class, after)
    success = attack.diagnostics(found)["attack success"]
    assert success.mean().item() > 0.6
    kept = [
        predicted(model, replace(batch, input_ids=ids)) == target
        for ids in found.noise_ids.unbind(1)
    ]
    assert torch.equal(torch.stack(kept, dim=1) & found.noise_valid, found.noise_valid)
    noisy = (found.noise_ids != batch.input_ids.unsqueeze(1)).sum(dim=2)
    size = found.substituted.sum(dim=1)
    assert torch.equal(noisy, size.unsqueeze(1).expand_as(noisy))


def test_wrong_from_the_start_is_no_success() -> None:
    model, batch, target = problem(10)
    found = TokenAttack(n_neighbors=8).prepare(Batch(model, batch, 1 - target))
    assert not bool(found.success.any())
    assert not bool(found.substituted.any())
    value = AttackDetection(TokenAttack(n_neighbors=8))(
        model, batch, 1 - target, random_scores()
    )
    assert bool(value.isnan().all())


@pytest.mark.parametrize(
    "attack",
    [
        TokenAttack(max_fraction=0.3, n_neighbors=8, n_noise=6),
        EmbeddingAttack("fgsm", radius=0.5, n_noise=6),
        EmbeddingAttack("pgd", radius=0.5, n_noise=6),
    ],
    ids=lambda attack: attack.name,
)
def test_truth_notices_an_attack_and_random_does_not(
    attack: TokenAttack | EmbeddingAttack,
) -> None:
    model, batch, target = problem(80)
    metric = AttackDetection(attack)
    truth = metric(model, batch, target, occlusion(model))
    random = metric(model, batch, target, random_scores())
    assert int((~truth.isnan()).sum()) >= 20
    assert truth.nanmean().item() > 0.7
    assert abs(random.nanmean().item() - 0.5) < 0.15
    assert metric.name == f"{attack.name}_auroc"
    assert "Adversarial" in metric.paper or "HotFlip" in metric.paper


def test_planted_model_notices_moved_embeddings() -> None:
    model = text_model_of(PlantedAttention())
    batch = batch_of(planted_texts(60))
    target = predicted(model, batch)
    metric = AttackDetection(EmbeddingAttack(radius=2.0))
    truth = metric(model, batch, target, occlusion(model)).nanmean().item()
    random = metric(model, batch, target, random_scores()).nanmean().item()
    assert truth > random + 0.2


def test_truth_points_to_the_substituted_words() -> None:
    model, batch, target = problem(80)
    metric = AttackLocalization(TokenAttack(max_fraction=0.3, n_neighbors=8))
    truth = metric(model, batch, target, occlusion(model)).nanmean().item()
    random = metric(model, batch, target, random_scores()).nanmean().item()
    assert truth > random + 0.2


def test_planted_word_is_what_an_attack_changes() -> None:
    """Only words 2 and 3 matter; 3 is made a neighbor of 2."""
    module = PlantedAttention()
    model = text_model_of(module)
    batch = batch_of(planted_texts(20))
    target = predicted(model, batch)
    metric = AttackLocalization(TokenAttack(n_neighbors=3))
    found = metric.perturbation.prepare(Batch(model, batch, target))
    planted = (batch.input_ids == 2) | (batch.input_ids == 3)
    assert bool(found.success.any())
    assert torch.equal(found.substituted[found.success], planted[found.success])
    truth = metric(model, batch, target, occlusion(model))
    assert truth.nanmean().item() == 1.0
    random = metric(model, batch, target, random_scores())
    assert random.nanmean().item() < 0.6


def test_every_token_is_a_word_of_its_own() -> None:
    model, batch, target = problem(4)
    before = model.embedding.get_parameter("weight")
    moved = model.embed(batch.input_ids) + torch.randn(4, batch.input_ids.shape[1], 3)
    expected = model.probabilities_from_embeddings(moved, batch.attention_mask)
    with temporary_words(model, batch, moved) as ids:
        assert torch.equal(
            ids[~batch.attributable], batch.input_ids[~batch.attributable]
        )
        words = ids[batch.attributable]
        assert len(words.unique()) == len(words)
        found = model.probabilities(ids, batch.attention_mask)
        torch.testing.assert_close(found, expected)
        gradient_x_embedding(model)(ids, batch.attention_mask, target)
    assert model.embedding.weight is before
    assert model.embedding.num_embeddings == len(before)
    with pytest.raises(KeyError), temporary_words(model, batch, moved):
        raise KeyError
    assert model.embedding.weight is before


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_moves_stay_within_the_radius_and_off_the_padding(attack: str) -> None:
    model, batch, target = problem(20)
    start = model.embed(batch.input_ids)
    moved = attack_embeddings(model, batch, target, 0.1, attack)
    move = moved - start
    assert move.abs().max().item() <= 0.1 + 1e-6
    assert not bool(move[~batch.attributable].any())
    # The model reads the first number alone: that is where the gradient is.
    sign = torch.where(target == 1, -1.0, 1.0)[:, None].expand(batch.input_ids.shape)
    expected = 0.1 * sign[batch.attributable]
    torch.testing.assert_close(
        move[batch.attributable][:, 0], expected, rtol=0, atol=1e-5
    )
    assert not bool(move[..., 1:].any())
    noise = noise_like(move, batch.attributable, batch.seeds)
    torch.testing.assert_close(noise.abs(), move.abs())
    assert (
        -0.3 < (torch.sign(noise) * torch.sign(move)).sum() / (noise != 0).sum() < 0.3
    )


def test_confident_model_can_be_attacked() -> None:
    """Captum treats gradients below 1e-6 as zero; a sure model has only such."""
    module = BagOfWords()
    with torch.no_grad():
        module.embedding.weight[2:, 0] = 10.0
    model = text_model_of(module)
    batch = batch_of([[5, 6, 7, 8]])
    target = predicted(model, batch)
    moved = attack_embeddings(model, batch, target, 0.5, "fgsm")
    assert bool(((moved - model.embed(batch.input_ids))[..., 0] < 0).all())


def test_sensitivity_equals_captums() -> None:
    model, batch, target = problem(6)
    explain = occlusion(model)
    perturbation = EmbeddingNoise(radius=0.5, n_samples=4)
    mine = SensitivityMax(perturbation)(model, batch, target, explain)
    draws = iter(perturbation.prepare(Batch(model, batch, target)).unbind(dim=1))

    def explanation(embedded: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (moved,) = embedded if isinstance(embedded, tuple) else (embedded,)
        with temporary_words(model, batch, moved) as ids:
            return (explain(ids, batch.attention_mask, target),)

    captums = captum_sensitivity_max(
        explanation,
        model.embed(batch.input_ids),
        perturb_func=lambda embedded, radius: next(draws),
        n_perturb_samples=4,
        max_examples_per_batch=len(batch),  # so that each call is one draw
    )
    torch.testing.assert_close(mine, captums, rtol=1e-6, atol=1e-9)
    assert mine.min().item() > 0.01


@pytest.mark.parametrize("name", ["bag of words", "planted"])
def test_token_attack_depends_on_the_text_alone(name: str) -> None:
    if name == "planted":
        model, batch = text_model_of(PlantedAttention()), batch_of(planted_texts(8))
    else:
        model, batch, _ = problem(8)
    target = predicted(model, batch)
    attack = TokenAttack(n_neighbors=6)
    together = attack.prepare(Batch(model, batch, target))
    for row in range(8):
        mine = batch.trimmed_row(row)
        alone = attack.prepare(Batch(model, mine, target[row : row + 1]))
        length = mine.input_ids.shape[1]
        assert torch.equal(together.input_ids[row, :length], alone.input_ids[0])
        assert torch.equal(together.noise_ids[row, :, :length], alone.noise_ids[0])
        assert torch.equal(together.noise_valid[row], alone.noise_valid[0])
        assert bool(together.success[row]) == bool(alone.success[0])


def test_noise_depends_on_the_text_alone() -> None:
    model, batch, target = problem(6)
    together = EmbeddingNoise().prepare(Batch(model, batch, target))
    for row in range(6):
        mine = batch.trimmed_row(row)
        alone = EmbeddingNoise().prepare(Batch(model, mine, target[row : row + 1]))
        assert torch.equal(together[row, :, : mine.input_ids.shape[1]], alone[0])


def test_small_noise_moves_truth_little_and_random_much() -> None:
    model, batch, target = problem(20)
    metric = SensitivityMax()
    truth = metric(model, batch, target, occlusion(model)).mean().item()
    random = metric(model, batch, target, random_scores()).mean().item()
    assert truth < 0.1
    assert random > 0.8


def test_recurrent_models_can_be_attacked() -> None:
    from captum_attngrad.models import AttentionLSTMClassifier

    module = AttentionLSTMClassifier(40, embedding_dim=8, hidden_size=6)
    model = text_model_of(module)
    batch = batch_of(random_texts(8))
    target = predicted(model, batch)
    for attack in (TokenAttack(n_neighbors=5), EmbeddingAttack(radius=3.0)):
        found = attack.prepare(Batch(model, batch, target))
        assert found.success.shape == (8,)
        value = AttackDetection(attack)(model, batch, target, random_scores())
        assert torch.equal(value.isnan(), ~(found.success & found.noise_valid.any(1)))
    assert all(parameter.grad is None for parameter in module.parameters())


def test_bad_input_is_named() -> None:
    for call, message in (
        (lambda: TokenAttack(max_fraction=0), "max_fraction is 0"),
        (lambda: TokenAttack(n_noise=0), "n_noise is 0"),
        (lambda: EmbeddingAttack("cw"), "attack is 'cw'; expected one of: fgsm, pgd"),
        (lambda: EmbeddingAttack(radius=0), "radius is 0"),
        (lambda: EmbeddingNoise(n_samples=0), "n_samples 0"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
