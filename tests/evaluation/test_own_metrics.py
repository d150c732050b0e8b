"""Metrics of the user's own: measured if they are right, named if they are not."""

import re

import pytest
import torch
from captum.attr import InputXGradient, NoiseTunnel
from torch import Tensor

from captum_attngrad.evaluation import Comparison, captum_method, compare
from captum_attngrad.metrics import (
    Answers,
    ErasureMetric,
    NeighborSubstitution,
    ReexplainMetric,
)
from tests.evaluation.planted import planted_text_model, planted_texts

NEIGHBORS = NeighborSubstitution(n_neighbors=2)


class TopWordFlips(ErasureMetric):
    name = "top_word_flips"
    higher_is_better = True
    value_range = (0.0, 1.0)
    best_value = 1.0
    paper = ""
    description = "whether replacing the top-scored token changes the class"

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        top = attributions.masked_fill(~attributable, -torch.inf).argmax(dim=1)
        return torch.nn.functional.one_hot(top, attributions.shape[1])[:, None].bool()

    def value(
        self,
        full: Answers,
        masked: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        return masked.margin[:, 0] < 0


class OneForAll(TopWordFlips):
    def value(self, *args: object) -> Tensor:
        return torch.tensor(0.5)


class OneForEachToken(TopWordFlips):
    def value(
        self,
        full: Answers,
        masked: Answers,
        attributions: Tensor,
        attributable: Tensor,
    ) -> Tensor:
        return attributions


class NoTensor(TopWordFlips):
    def value(self, *args: object) -> Tensor:
        return 0.5  # type: ignore[return-value]


class NoVariants(TopWordFlips):
    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        return attributable


class NotBoolean(TopWordFlips):
    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        return super().masks(attributions, attributable).float()


class OneForAllTwice(ReexplainMetric):
    name = "one_for_all_twice"
    property = "resilience"
    higher_is_better = True
    value_range = (0.0, 1.0)
    best_value = 1.0
    paper = ""
    description = "a mistake"

    def value(self, *args: object) -> Tensor:
        return torch.tensor(0.5)


class Undeclared(ErasureMetric):
    name = "undeclared"
    higher_is_better = True
    masks = TopWordFlips.masks
    value = TopWordFlips.value


def run(metric: ErasureMetric | ReexplainMetric) -> Comparison:
    return compare(
        planted_text_model(),
        planted_texts(6),
        methods=["leave_one_out", "random"],
        metrics=[metric, "comprehensiveness"],
        show_progress=False,
    )


def test_an_own_metric_is_measured() -> None:
    result = run(TopWordFlips())
    # Without its one opinion word a planted text is undecided, which flips nothing;
    # the fourth says "bad" and "fine".
    assert result.values[0, 0].tolist() == [0, 0, 0, 1, 0, 0]
    assert "top_word_flips" in result.table()
    assert not result.notes


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (OneForAll(), r"a tensor of float32 with shape \(\); expected .*\(6,\)"),
        (OneForEachToken(), r"shape \(6, \d+\); expected"),
        (NoTensor(), "float 0.5; expected"),
        (NoVariants(), r"mask with a tensor of bool with shape \(6, \d+\); expected"),
        (NotBoolean(), "mask with a tensor of float32 .*; expected a boolean tensor"),
        (
            OneForAllTwice(NeighborSubstitution(n_neighbors=2)),
            r"shape \(\); expected .*\(6,\)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_wrong_metric_is_named_and_the_others_go_on(
    metric: ErasureMetric | ReexplainMetric, says: str
) -> None:
    result = run(metric)
    assert result.n_values("leave_one_out", metric.name) == 0
    assert result.n_values("leave_one_out", "comprehensiveness") == 6
    why = result.notes["leave_one_out", metric.name]
    assert repr(metric.name) in why
    assert re.search(says, why), why


def test_what_a_metric_does_not_declare_is_said_before_the_work() -> None:
    with pytest.raises(TypeError, match="Undeclared does not declare value_range, b"):
        run(Undeclared())


def test_a_wrapped_attribution_is_described() -> None:
    wrapped = captum_method(NoiseTunnel(InputXGradient(lambda x: x)))
    assert wrapped.description == "Captum's NoiseTunnel of InputXGradient()"
