"""The kinks of ReLUs, which finite differences step over, do not look like errors."""

from __future__ import annotations

import pytest
import torch

from captum_attngrad import verify


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_relu_is_no_error(seed: int) -> None:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Embedding(100, 64),
        torch.nn.TransformerEncoderLayer(64, 4, batch_first=True),  # 2,048 ReLUs
        torch.nn.Linear(64, 2),
    ).eval()
    found = verify(model, torch.randint(0, 100, (8, 20)))
    assert found, str(found)
