"""Which tokens are the top ones, and how often the model is run for them."""

import pytest
import torch
from torch import Tensor

from captum_attngrad.metrics.functional import (
    masked_answers,
    n_top_tokens,
    top_token_masks,
)


@pytest.mark.parametrize(
    ("n_tokens", "fraction", "expected"),
    [
        (1, 0.05, 1),
        (20, 0.05, 1),
        (21, 0.05, 2),
        (100, 0.07, 7),  # 0.07 * 100 is above 7 in floating point
        (30, 0.1, 3),
        (7, 0.5, 4),
        (7, 1.0, 7),
    ],
)
def test_fraction_is_rounded_up(n_tokens: int, fraction: float, expected: int) -> None:
    assert n_top_tokens(n_tokens, fraction) == expected


def test_ties_go_to_the_first_token() -> None:
    # Long enough that an unstable sort would show.
    scores = torch.zeros(2, 1000)
    mask = top_token_masks(scores, torch.ones(2, 1000, dtype=torch.bool), [0.01])
    assert mask[:, 0].nonzero()[:, 1].tolist() == [*range(10), *range(10)]


def test_negative_scores_come_last() -> None:
    scores = torch.tensor([[-5.0, 0.0, 0.1, -0.1]])
    mask = top_token_masks(scores, torch.ones(1, 4, dtype=torch.bool), [0.25, 0.5, 1])
    assert mask.int().tolist() == [[[0, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 1]]]


def test_equal_variants_run_once_and_keep_their_place() -> None:
    rows: list[list[int]] = []

    def forward(ids: Tensor, offset: Tensor, scale: float) -> Tensor:
        rows.extend(ids.tolist())
        p = (ids.double().sum(dim=1) + offset) * scale
        return torch.stack([p, 1 - p], dim=1)

    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    offset = torch.tensor([0.0, 10.0])
    masks = torch.tensor(
        [[[1, 0, 0], [0, 0, 0], [1, 0, 0]], [[0, 0, 0], [1, 1, 1], [0, 0, 0]]]
    ).bool()
    for budget in (1, 3, 7, 1000):
        rows.clear()
        p = masked_answers(
            forward,
            ids,
            masks,
            [0, 1],
            replacement=0,
            additional_forward_args=(offset, 0.01),
            max_tokens_per_batch=budget,
        ).p
        expected = torch.tensor([[0.05, 0.06, 0.05], [0.75, 0.90, 0.75]])
        torch.testing.assert_close(p, expected.double())
        assert sorted(rows) == [[0, 0, 0], [0, 2, 3], [1, 2, 3], [4, 5, 6]]


def test_batches_stay_within_the_budget() -> None:
    sizes = []

    def forward(ids: Tensor) -> Tensor:
        sizes.append(ids.numel())
        return torch.full((len(ids), 2), 0.5)

    masks = torch.eye(10, dtype=torch.bool).unsqueeze(0)
    masked_answers(
        forward, torch.ones(1, 10).long(), masks, 0, 0, max_tokens_per_batch=35
    )
    assert sizes == [30, 30, 30, 10]


def test_wrong_shapes_are_named() -> None:
    masks = torch.zeros(2, 1, 3, dtype=torch.bool)

    def forward(ids: Tensor) -> Tensor:
        return torch.full((len(ids), 2), 0.5)

    with pytest.raises(ValueError, match=r"masks has shape \(2, 1, 3\)"):
        masked_answers(forward, torch.ones(2, 4).long(), masks, 0, 0)
    with pytest.raises(ValueError, match=r"inputs has shape \(4,\)"):
        masked_answers(forward, torch.ones(4).long(), masks, 0, 0)
    with pytest.raises(TypeError, match="masks has dtype"):
        masked_answers(forward, torch.ones(2, 3).long(), masks.int(), 0, 0)
