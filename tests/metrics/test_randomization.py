"""Explanations of a model that has learnt nothing."""

import pytest
import torch
from torch import Tensor

from captum_attngrad.metrics import ParameterRandomization, ParameterShuffling
from captum_attngrad.metrics.sanity.parameter_randomization import shuffled_parameters
from tests.metrics.known import (
    BagOfWords,
    PlantedAttention,
    batch_of,
    occlusion,
    planted_texts,
    predicted,
    random_texts,
    text_model_of,
)


def test_numbers_are_the_same_in_another_order() -> None:
    model = PlantedAttention()
    own = {key: value.clone() for key, value in model.state_dict().items()}
    changed = shuffled_parameters(model, seed=1).state_dict()
    for key, value in own.items():
        assert torch.equal(model.state_dict()[key], value)
        assert torch.equal(
            changed[key].flatten().sort().values, value.flatten().sort().values
        )
    assert not torch.equal(changed["embedding.weight"], own["embedding.weight"])
    again = shuffled_parameters(model, seed=1).state_dict()
    assert all(torch.equal(again[key], changed[key]) for key in own)
    other = shuffled_parameters(model, seed=2).state_dict()
    assert not torch.equal(other["embedding.weight"], changed["embedding.weight"])


def test_shared_parameters_stay_shared() -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)])
    model[1].weight = model[0].weight
    changed = shuffled_parameters(model)
    assert changed.get_parameter("0.weight") is changed.get_parameter("1.weight")


def test_magnitude_and_mean_of_the_correlation() -> None:
    model = text_model_of(BagOfWords())
    batch = batch_of([[5, 6, 7], [8, 9, 10]])
    calls = iter(
        [
            torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]),
            torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]]),  # -1 and 0.5
            torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]),  # 1 and undefined
        ]
    )

    def explain(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        return next(calls)

    metric = ParameterRandomization(ParameterShuffling(n_models=2))
    value = metric(model, batch, torch.tensor([0, 1]), explain)
    assert value.tolist() == pytest.approx([1.0, 0.5])


def test_what_ignores_the_model_loses() -> None:
    for module, texts in (
        (BagOfWords(), random_texts(40)),
        (PlantedAttention(), planted_texts(40)),
    ):
        model = text_model_of(module)
        batch = batch_of(texts)
        target = predicted(model, batch)
        metric = ParameterRandomization(ParameterShuffling(n_models=3))

        def lengths(ids: Tensor, mask: Tensor, target: Tensor) -> Tensor:
            return ids * 0.37 % 1  # looks at the words, not at the model

        truth = metric(model, batch, target, occlusion(model)).nanmean().item()
        ignorant = metric(model, batch, target, lengths).nanmean().item()
        assert ignorant == pytest.approx(1)
        assert truth < 0.7


def test_models_are_counted() -> None:
    with pytest.raises(ValueError, match="n_models is 0"):
        ParameterShuffling(n_models=0)
