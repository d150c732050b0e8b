"""Infidelity against Captum's own, and its random sets."""

from __future__ import annotations

import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_attngrad.metrics import Infidelity
from captum_attngrad.metrics.functional import infidelity, random_masks
from tests.metrics.known import (
    UNK,
    BagOfWords,
    PlantedAttention,
    batch_of,
    occlusion,
    planted_texts,
    predicted,
    random_scores,
    random_texts,
    text_model_of,
)


def test_hand_computed() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.0]])
    removed = torch.tensor([[[1, 0, 0], [1, 1, 0]]]).bool()
    effects = torch.tensor([[1.0, 1.0]])
    # Sums 1 and 3; differences 0 and 2.
    value = infidelity(scores, removed, effects, normalize=False)
    assert value.item() == pytest.approx(2.0)
    # The best factor is (1*1 + 3*1) / (1 + 9) = 0.4; differences 0.6 and 0.2.
    value = infidelity(scores, removed, effects, normalize=True)
    assert value.item() == pytest.approx((0.36 + 0.04) / 2)


def test_no_scores_fit_nothing() -> None:
    value = infidelity(
        torch.zeros(1, 2), torch.ones(1, 3, 2).bool(), torch.full((1, 3), 2.0)
    )
    assert value.item() == 4.0


@pytest.mark.parametrize("normalize", [True, False])
def test_equals_captum(normalize: bool) -> None:
    model = text_model_of(PlantedAttention())
    batch = batch_of(planted_texts(7))
    target = predicted(model, batch)
    ids, mask = batch.input_ids, batch.attention_mask
    scores = random_scores()(ids, mask, target).double()
    n_samples = 6
    metric = Infidelity(n_samples, normalize)
    mine = metric(model.probabilities, ids, scores, target, UNK, mask, mask)

    removed = random_masks(mask, n_samples).flatten(0, 1).double()

    def forward(kept: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return model.probabilities(ids.masked_fill(kept == 0, UNK), mask)

    def perturb(kept: Tensor) -> tuple[Tensor, Tensor]:
        return removed, kept - removed  # each text is repeated n_samples times

    captums = captum_infidelity(
        forward,
        perturb,
        torch.ones_like(scores),
        scores,
        additional_forward_args=(ids, mask),
        target=target,
        n_perturb_samples=n_samples,
        normalize=normalize,
    )
    torch.testing.assert_close(mine, captums, rtol=1e-9, atol=1e-12)
    assert float(mine.min()) > 1e-6


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_random_sets_do_not_depend_on_the_batch(lengths: list[int]) -> None:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    sets = random_masks(mask, 5)
    assert bool(sets.any(dim=2).all())
    assert not bool((sets & ~mask.unsqueeze(1)).any())
    for row, length in enumerate(lengths):
        alone = random_masks(torch.ones(1, length, dtype=torch.bool), 5)
        assert torch.equal(sets[row, :, :length], alone[0])


def test_sizes_of_random_sets_are_uniform() -> None:
    sets = random_masks(torch.ones(1, 4, dtype=torch.bool), 4000)
    sizes = sets.sum(dim=2).flatten().bincount(minlength=5).tolist()
    assert sizes[0] == 0
    assert all(900 < count < 1100 for count in sizes[1:])
    assert bool(((sets.float().mean(dim=1) - 0.625).abs() < 0.03).all())
    other = random_masks(torch.ones(1, 4, dtype=torch.bool), 4000, seed=1)
    assert not torch.equal(sets, other)


def test_truth_beats_random() -> None:
    for module, texts in (
        (BagOfWords(), random_texts(60)),
        (PlantedAttention(), planted_texts()),
    ):
        model = text_model_of(module)
        batch = batch_of(texts)
        target = predicted(model, batch)
        means = []
        for explain in (occlusion(model), random_scores()):
            value = Infidelity()(
                model.probabilities,
                batch.input_ids,
                explain(batch.input_ids, batch.attention_mask, target),
                target,
                UNK,
                batch.attributable,
                batch.attention_mask,
            )
            means.append(value.mean().item())
        assert means[0] < means[1] / 2


def test_samples_are_checked() -> None:
    with pytest.raises(ValueError, match="n_samples is 0"):
        Infidelity(n_samples=0)
