"""Comprehensiveness and sufficiency against hand-computed and slow references."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_attngrad.metrics import Comprehensiveness, Sufficiency
from captum_attngrad.metrics.functional import comprehensiveness, sufficiency

REPLACEMENT = 0
# Log-odds that each word adds to class 1; the replacement adds none.
WEIGHTS = torch.tensor([0.0, 3.0, 1.0, -2.0, 0.5, -0.25, 2.0, 0.125]).double()


def bag_of_words(input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Probabilities of a linear model of the words: (batch, 2)."""
    weights = WEIGHTS[input_ids]
    if mask is not None:
        weights = weights * mask
    log_odds = weights.sum(dim=1)
    return torch.stack([-log_odds / 2, log_odds / 2], dim=1).softmax(dim=1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_reference(
    ids: list[int], scores: list[float], target: int, bins: list[float], keep: bool
) -> float:
    """One text, plain Python, from the definition."""

    def probability(words: list[int]) -> float:
        p = sigmoid(sum(float(WEIGHTS[word]) for word in words))
        return p if target == 1 else 1 - p

    order = sorted(range(len(ids)), key=lambda i: -scores[i])  # sorted() is stable
    drops = []
    for fraction in bins:
        top = set(order[: math.ceil(round(fraction * len(ids), 6))])
        words = [
            word if (i in top) == keep else REPLACEMENT for i, word in enumerate(ids)
        ]
        drops.append(probability(ids) - probability(words))
    return sum(drops) / len(drops)


def test_hand_computed_comprehensiveness() -> None:
    # Log-odds 3 + 1 - 2 + 0.5 = 2.5. The top 25% is the word worth 3, the top 50%
    # the words worth 3 and 1.
    ids = torch.tensor([[1, 2, 3, 4]])
    value = comprehensiveness(
        bag_of_words, ids, WEIGHTS[ids], 1, REPLACEMENT, bins=(0.25, 0.5)
    )
    expected = sigmoid(2.5) - (sigmoid(-0.5) + sigmoid(-1.5)) / 2
    assert value.shape == (1,)
    assert value.item() == pytest.approx(expected, abs=1e-12)


def test_hand_computed_sufficiency() -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    value = sufficiency(
        bag_of_words, ids, WEIGHTS[ids], 1, REPLACEMENT, bins=(0.25, 0.5)
    )
    expected = sigmoid(2.5) - (sigmoid(3.0) + sigmoid(4.0)) / 2
    assert value.item() == pytest.approx(expected, abs=1e-12)
    assert value.item() < 0  # without "3" the class is more probable than with it


def test_other_class_uses_its_own_probability() -> None:
    ids = torch.tensor([[1, 2, 3, 4]])
    value = comprehensiveness(
        bag_of_words, ids, -WEIGHTS[ids], 0, REPLACEMENT, bins=(0.25,)
    )
    expected = (1 - sigmoid(2.5)) - (1 - sigmoid(4.5))
    assert value.item() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_batches_equal_one_text_at_a_time(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 13), min_size=1, max_size=5))
    texts = [
        data.draw(st.lists(st.integers(1, 7), min_size=n, max_size=n)) for n in lengths
    ]
    # Few distinct scores, so that ties are common.
    scores = [
        data.draw(
            st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=n, max_size=n)
        )
        for n in lengths
    ]
    targets = data.draw(
        st.lists(st.integers(0, 1), min_size=len(texts), max_size=len(texts))
    )
    bins = data.draw(
        st.lists(st.sampled_from([0.05, 0.1, 0.2, 0.5, 1.0]), min_size=1, max_size=4)
    )
    budget = data.draw(st.sampled_from([1, 7, 40, 10_000]))
    longest = max(lengths)
    ids = torch.tensor([text + [1] * (longest - len(text)) for text in texts])
    # Padding carries the highest scores and must be left alone all the same.
    attributions = torch.tensor([row + [9.0] * (longest - len(row)) for row in scores])
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    for function, keep in ((comprehensiveness, False), (sufficiency, True)):
        values = function(
            bag_of_words,
            ids,
            attributions,
            targets,
            REPLACEMENT,
            attributable=mask,
            additional_forward_args=mask,
            bins=bins,
            max_tokens_per_batch=budget,
        )
        expected = [
            slow_reference(text, row, target, bins, keep)
            for text, row, target in zip(texts, scores, targets, strict=True)
        ]
        torch.testing.assert_close(
            values, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
        )


def test_random_loses_to_the_truth_and_the_reverse_loses_to_random() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 8, (200, 12), generator=generator)
    target = bag_of_words(ids).argmax(dim=1)
    sign = torch.where(target == 1, 1.0, -1.0).double().unsqueeze(1)
    truth = WEIGHTS[ids] * sign
    random = torch.rand(ids.shape, generator=generator)
    for metric in (Comprehensiveness(), Sufficiency()):
        means = [
            metric(bag_of_words, ids, scores, target, REPLACEMENT).mean().item()
            for scores in (truth, random, -truth)
        ]
        if not metric.higher_is_better:
            means = [-mean for mean in means]
        best, middle, worst = means
        assert best > middle + 0.05
        assert middle > worst + 0.05


def test_special_tokens_are_neither_removed_nor_counted() -> None:
    ids = torch.tensor([[6, 1, 2, 6]])
    attributable = torch.tensor([[False, True, True, False]])
    scores = torch.tensor([[9.0, 2.0, 1.0, float("nan")]])
    value = comprehensiveness(
        bag_of_words, ids, scores, 1, REPLACEMENT, attributable, bins=(0.5,)
    )
    assert value.item() == pytest.approx(sigmoid(8.0) - sigmoid(5.0), abs=1e-12)


@pytest.mark.parametrize("metric", [Comprehensiveness, Sufficiency])
def test_declarations_are_consistent(
    metric: type[Comprehensiveness] | type[Sufficiency],
) -> None:
    low, high = metric.value_range
    assert metric.best_value == (high if metric.higher_is_better else low)
    assert metric.property == "faithfulness"
    assert "DeYoung" in metric.paper


def test_model_is_run_without_gradient() -> None:
    weight = torch.ones(8, requires_grad=True)
    seen = []

    def forward(ids: Tensor) -> Tensor:
        probability = weight[ids].mean(dim=1, keepdim=True) / 2
        seen.append(probability.requires_grad)
        return torch.cat([probability, 1 - probability], dim=1)

    comprehensiveness(forward, torch.ones(1, 3).long(), torch.ones(1, 3), 0, 2)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributions": torch.ones(1, 3)}, r"\(1, 3\).*\(1, 4\)"),
        ({"attributions": torch.full((1, 4), torch.nan)}, "nan at example 0"),
        ({"target": 2}, "target 2 is out of range.*2 classes"),
        ({"target": [0, 1, 1]}, r"shape \(3,\).*1 examples"),
        ({"bins": (0.2, 20)}, "bins holds 20.0"),
        ({"bins": ()}, "bins is empty"),
        ({"attributable": torch.zeros(1, 4).bool()}, "Example 0 has no attributable"),
        ({"max_tokens_per_batch": 0}, "max_tokens_per_batch is 0"),
        ({"forward_func": lambda ids: bag_of_words(ids).log()}, "Apply a softmax"),
        ({"forward_func": lambda ids: bag_of_words(ids)[:, 1]}, "batch, classes"),
    ],
)
def test_bad_input_is_named(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "forward_func": bag_of_words,
        "inputs": torch.tensor([[1, 2, 3, 4]]),
        "attributions": torch.ones(1, 4),
        "target": 1,
        "replacement": REPLACEMENT,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        comprehensiveness(**arguments)  # type: ignore[arg-type]


def test_wrong_dtypes_are_named() -> None:
    ids = torch.tensor([[1, 2]])
    scores = torch.ones(1, 2)
    with pytest.raises(TypeError, match=r"attributable has dtype torch.int64"):
        comprehensiveness(bag_of_words, ids, scores, 1, 0, attributable=ids)
    with pytest.raises(TypeError, match=r"target has dtype torch.float32"):
        comprehensiveness(bag_of_words, ids, scores, torch.tensor([0.5]), 0)
