"""Time, passes and memory of known amounts of work."""

import math
import time

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad.metrics import BackwardPasses, ForwardPasses, PeakMemory, Seconds
from captum_attngrad.metrics.functional import Cost, measure_cost, peak_memory


class Output(dict):  # type: ignore[type-arg]
    """A dictionary, as Hugging Face models return."""


class AsDictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Output:
        return Output(loss=None, logits=self.linear(x))


@pytest.mark.parametrize("model", [nn.Linear(4, 2), AsDictionary()])
def test_passes_are_rows(model: nn.Module) -> None:
    def run() -> None:
        with torch.no_grad():
            model(torch.ones(6, 4))
        for _ in range(2):
            x = torch.ones(3, 4, requires_grad=True)
            output = model(x)
            logits = output if isinstance(output, Tensor) else output["logits"]
            torch.autograd.grad(logits.sum(), x)

    cost = measure_cost(run, model, n_examples=3, memory=False)
    assert cost.forward_passes == (6 + 3 + 3) / 3
    assert cost.backward_passes == (3 + 3) / 3
    assert math.isnan(cost.peak_memory)
    assert not model._forward_hooks


def test_seconds_are_per_example() -> None:
    cost = measure_cost(lambda: time.sleep(0.2), nn.Linear(1, 1), 10, memory=False)
    assert 0.02 <= cost.seconds < 0.06


def test_peak_memory_of_known_tensors() -> None:
    n = 1 << 18  # one megabyte of float32

    def run() -> None:
        first = torch.zeros(4 * n)
        del first
        second = torch.zeros(n)
        third = torch.zeros(2 * n)  # 3 MB together, but the 4 MB before were more
        del second, third

    peak = peak_memory(run, torch.device("cpu"))
    assert 4 * 4 * n <= peak < 4 * 4 * n * 1.1
    cost = measure_cost(run, nn.Linear(1, 1), n_examples=2)
    assert cost.peak_memory == pytest.approx(peak / 2, rel=0.1)


def test_metrics_read_their_part() -> None:
    cost = Cost(1.0, 2.0, 3.0, 4.0)
    metrics = (Seconds(), ForwardPasses(), BackwardPasses(), PeakMemory())
    assert [metric.value(cost) for metric in metrics] == [1, 2, 3, 4]


def test_examples_are_counted() -> None:
    with pytest.raises(ValueError, match="n_examples is 0"):
        measure_cost(lambda: None, nn.Linear(1, 1), 0)
