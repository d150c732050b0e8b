"""Scores before and after changes that leave the answer alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from captum_attngrad.metrics import (
    Batch,
    InvariantModelChanges,
    NeighborSubstitution,
    NotApplicableError,
    Resilience,
)
from captum_attngrad.metrics._neighbors import random_substitutions
from captum_attngrad.metrics.functional import mean_agreement, nearest_neighbors
from captum_attngrad.metrics.resilience.invariances import INVARIANT_CHANGES
from captum_attngrad.models import AttentionLSTMClassifier
from tests.metrics.known import (
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

MEASURES = ["spearman", "cosine", "top_k"]


def lstm() -> AttentionLSTMClassifier:
    torch.manual_seed(0)
    model = AttentionLSTMClassifier(40, embedding_dim=8, hidden_size=6)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return model


def test_mean_agreement_hand_computed() -> None:
    before = torch.tensor([[1.0, 2.0, 3.0]] * 3)
    again = torch.tensor([[[2.0, 4.0, 6.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0]]] * 3)
    valid = torch.tensor([[True, True, True], [True, False, False], [False] * 3])
    mask = torch.ones(3, 3, dtype=torch.bool)
    value = mean_agreement(before, again, mask, valid).tolist()
    assert value[:2] == pytest.approx([(1 - 1 + 0.5) / 3, 1])
    assert math.isnan(value[2])
    top = mean_agreement(before, again, mask, valid, "top_k").tolist()
    assert top[:2] == pytest.approx([1 / 3, 1])  # the third token is the top one


@pytest.mark.parametrize("measure", MEASURES)
def test_what_depends_on_answers_alone_does_not_move_and_random_does(
    measure: str,
) -> None:
    for module in (PlantedAttention(), lstm()):
        model = text_model_of(module)
        batch = batch_of(planted_texts(20))
        target = predicted(model, batch)
        metric = Resilience(measure=measure)
        truth = metric(model, batch, target, occlusion(model))
        random = metric(model, batch, target, random_scores())
        # Fillers that weigh alike change places by rounding errors.
        assert truth.mean().item() > 0.99
        assert random.mean().item() < 0.6
        assert metric.name == f"invariance_{measure}"


def test_gradient_times_embedding_moves_when_the_embedding_does() -> None:
    model = text_model_of(lstm())
    batch = batch_of(random_texts(20))
    target = predicted(model, batch)
    moved, still = (
        Resilience(InvariantModelChanges([change]))(
            model, batch, target, gradient_x_embedding(model)
        )
        for change in ("input_shift", "permutation")
    )
    assert moved.mean().item() < 0.9
    assert still.mean().item() > 0.999


def test_raw_attention_gradient_moves_with_the_values_and_centered_does_not() -> None:
    """The exact statement: adding c to all values moves G by dO · c and no more."""
    model = PlantedAttention().eval()
    torch.nn.init.normal_(model.attention.out_proj.weight, std=0.5)
    text_model = text_model_of(model)
    batch = batch_of(planted_texts(12))
    target = predicted(text_model, batch)

    def attention_gradient(centered: bool):  # type: ignore[no-untyped-def]
        def explain(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
            with torch.no_grad():
                x = model.embedding(ids)
                q, k, v = (
                    part.unflatten(2, (2, 4)).transpose(1, 2)
                    for part in torch.nn.functional.linear(
                        x, model.attention.in_proj_weight, model.attention.in_proj_bias
                    ).split(8, dim=2)
                )
                scores = q @ k.transpose(2, 3) / 2
                scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
            weights = scores.softmax(dim=3).requires_grad_()
            out = (weights @ v).transpose(1, 2).flatten(2)
            out = model.attention.out_proj(out) * mask.unsqueeze(2)
            pooled = out.sum(dim=1) / mask.sum(dim=1, keepdim=True)
            chosen = model.classifier(pooled).gather(1, target.unsqueeze(1)).sum()
            (gradient,) = torch.autograd.grad(chosen, weights)
            if centered:
                gradient = gradient - (weights * gradient).sum(dim=3, keepdim=True)
            # Padded queries have no output; padded keys are not attended.
            scores = (gradient * mask[:, None, :, None]).sum(dim=(1, 2))
            assert isinstance(scores, Tensor)
            return scores

        return explain

    metric = Resilience(InvariantModelChanges(["value_constant"]), measure="cosine")
    raw = metric(text_model, batch, target, attention_gradient(centered=False))
    centered = metric(text_model, batch, target, attention_gradient(centered=True))
    assert centered.min().item() > 0.9999
    assert raw.mean().item() < 0.95
    basis = Resilience(InvariantModelChanges(["value_basis"]), measure="cosine")
    both = basis(text_model, batch, target, attention_gradient(centered=False))
    assert both.min().item() > 0.9999


def test_changes_that_move_the_answer_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(
        model: torch.nn.Module, seed: int = 0, *, run: object = None
    ) -> torch.nn.Module:
        changed = PlantedAttention()
        with torch.no_grad():
            changed.classifier.bias[0] += 1e-3
        return changed

    monkeypatch.setitem(INVARIANT_CHANGES, "permutation", wrong)
    model = text_model_of(PlantedAttention())
    batch = batch_of(planted_texts(4))
    target = predicted(model, batch)
    metric = Resilience(InvariantModelChanges(["permutation"]))
    with pytest.raises(ValueError, match=r"'permutation' moves a logit.* by 0\.001"):
        metric(model, batch, target, random_scores())
    loose = Resilience(InvariantModelChanges(["permutation"], tolerance=0.01))
    assert loose(model, batch, target, occlusion(model)).mean().item() > 0.99


def test_changes_that_do_not_apply() -> None:
    model = text_model_of(BagOfWords())
    batch = batch_of(random_texts(3))
    target = predicted(model, batch)
    with pytest.raises(NotApplicableError, match=r"No invariant change applies"):
        Resilience()(model, batch, target, random_scores())
    model = text_model_of(PlantedAttention())
    with pytest.raises(NotApplicableError, match="pass embedding and next_layer"):
        Resilience(InvariantModelChanges(["input_shift"]))(
            model, batch, target, random_scores()
        )
    found = InvariantModelChanges().prepare(Batch(model, batch, target))
    assert set(found.models) == set(INVARIANT_CHANGES) - {"input_shift"}
    assert InvariantModelChanges().diagnostics(found)[
        "largest logit difference"
    ].shape == (3,)


def test_model_is_as_before() -> None:
    module = lstm()
    model = text_model_of(module)
    own = {key: value.clone() for key, value in module.state_dict().items()}
    batch = batch_of(random_texts(3))

    def failing(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        if not torch.equal(module.embedding.weight, own["embedding.weight"]):
            raise KeyError("while changed")
        return torch.rand(ids.shape)

    metric = Resilience(InvariantModelChanges(["input_shift"]))
    with pytest.raises(KeyError, match="while changed"):
        metric(model, batch, predicted(model, batch), failing)
    for key, value in module.state_dict().items():
        assert torch.equal(value, own[key])


def test_nearest_neighbors_hand_computed() -> None:
    table = torch.tensor(
        [[0.0, 0.0], [1.0, 0.0], [5.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, 1.0]]
    )
    found = nearest_neighbors(table, torch.tensor([1, 5]), 2, excluded=[0])
    assert found.tolist() == [[2, 3], [3, 2]]
    found = nearest_neighbors(table, torch.tensor([1]), 1, excluded=[0, 2])
    assert found.tolist() == [[3]]
    assert nearest_neighbors(table, torch.tensor([], dtype=torch.long), 2).shape == (
        0,
        2,
    )
    with pytest.raises(ValueError, match="n_neighbors is 5 and 5 ids"):
        nearest_neighbors(table, torch.tensor([1]), 5, excluded=[0])


def test_substitutions_depend_on_the_text_alone() -> None:
    texts = random_texts(6)
    batch = batch_of(texts)
    neighbors = torch.arange(40)[:, None] + torch.tensor([100, 200])  # of each id
    counts = torch.tensor([1, 2, 3, 0, 2, 1])
    together = random_substitutions(
        batch.input_ids,
        batch.attributable,
        neighbors[batch.input_ids],
        counts,
        7,
        batch.seeds,
    )
    changed = together != batch.input_ids.unsqueeze(1)
    assert torch.equal(changed.sum(dim=2), counts.unsqueeze(1).expand(-1, 7))
    assert not bool((changed & ~batch.attributable.unsqueeze(1)).any())
    offset = (together - batch.input_ids.unsqueeze(1))[changed]
    assert set(offset.tolist()) == {100, 200}
    for row, text in enumerate(texts):
        alone = random_substitutions(
            torch.tensor([text]),
            torch.ones(1, len(text), dtype=torch.bool),
            neighbors[torch.tensor([text])],
            counts[row : row + 1],
            7,
            batch.seeds[row : row + 1],
        )
        assert torch.equal(together[row, :, : len(text)], alone[0])


def test_kept_neighbors_keep_the_answer() -> None:
    model = text_model_of(BagOfWords())
    batch = batch_of(random_texts(40))
    target = predicted(model, batch)
    perturbation = NeighborSubstitution(epsilon=0.05, n_neighbors=8)
    found = perturbation.prepare(Batch(model, batch, target))
    assert 0.2 < found.valid.float().mean().item() < 1
    p = model.probabilities(batch.input_ids, batch.attention_mask)
    for variant, valid in zip(
        found.input_ids.unbind(1), found.valid.unbind(1), strict=True
    ):
        after = model.probabilities(variant, batch.attention_mask)
        move = (after - p).gather(1, target.unsqueeze(1)).abs().squeeze(1)
        same = after.argmax(1) == target
        assert bool(((move <= 0.05) & same)[valid].all())
        # Words of the same topic: neighbors differ in the weight alone.
        assert bool(((variant - batch.input_ids) % 4 == 0).all())
        assert bool(((variant != batch.input_ids).sum(dim=1) >= 1).all())
    loose = NeighborSubstitution(epsilon=1.0, n_neighbors=8)
    found_loose = loose.prepare(Batch(model, batch, target))
    kept = [
        predicted(model, replace(batch, input_ids=ids)) == target
        for ids in found_loose.input_ids.unbind(1)
    ]
    assert torch.equal(torch.stack(kept, dim=1), found_loose.valid)
    share = perturbation.diagnostics(found)["texts with a neighbor"]
    assert torch.equal(share, found.valid.any(dim=1).double())


@pytest.mark.parametrize("measure", MEASURES)
def test_truth_moves_little_between_neighbors(measure: str) -> None:
    model = text_model_of(PlantedAttention())
    batch = batch_of(planted_texts(20))
    target = predicted(model, batch)
    metric = Resilience(NeighborSubstitution(n_neighbors=5), measure)
    truth = metric(model, batch, target, occlusion(model)).nanmean().item()
    random = metric(model, batch, target, random_scores()).nanmean().item()
    assert truth > random + 0.2
    assert metric.name == f"neighbors_{measure}"


def test_no_neighbor_within_epsilon_is_nan() -> None:
    model = text_model_of(BagOfWords())
    batch = batch_of(random_texts(5))
    target = predicted(model, batch)
    metric = Resilience(NeighborSubstitution(epsilon=0.0, n_neighbors=5))
    assert bool(metric(model, batch, target, occlusion(model)).isnan().all())
    assert "no variant" in metric.undefined


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"no invariant change 'rotate'.*key_con"):
        InvariantModelChanges(["rotate"])
    with pytest.raises(ValueError, match="changes is empty"):
        InvariantModelChanges([])
    with pytest.raises(ValueError, match="measure is 'mae'; expected one of: spearman"):
        Resilience(measure="mae")
    for arguments, message in (
        ({"fraction": 0.0}, r"fraction is 0\.0"),
        ({"epsilon": -1.0}, r"epsilon -1\.0"),
        ({"n_variants": 5, "n_draws": 4}, "n_draws 4"),
    ):
        with pytest.raises(ValueError, match=message):
            NeighborSubstitution(**arguments)
    model = replace(text_model_of(BagOfWords()), embedding=torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"is a Linear; expected torch\.nn\.Embedding"):
        NeighborSubstitution().prepare(Batch(model, batch_of([[2]]), torch.tensor([0])))
