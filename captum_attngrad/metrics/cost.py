r"""What an explanation costs: time, passes through the model, memory."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from captum_attngrad.metrics.base import ExplainedBatch, Metric
from captum_attngrad.metrics.functional.cost import Cost


class CostMetric(Metric):
    """One of the costs of an explanation, per example; see
    :func:`~captum_attngrad.metrics.functional.measure_cost`."""

    property = "cost"
    higher_is_better = False
    value_range = (0.0, float("inf"))
    best_value = 0.0
    paper = ""
    field: ClassVar[str]

    def value(self, cost: Cost) -> float:
        """The field of the cost that the metric reads."""
        found: float = getattr(cost, self.field)
        return found

    def measure_batch(self, explained: ExplainedBatch) -> Tensor:
        if explained.cost is None:
            raise ValueError(f"The metric {self.name!r} needs a measured cost.")
        n_texts = len(explained.batch.texts)
        return torch.full((n_texts,), self.value(explained.cost), dtype=torch.float64)


class Seconds(CostMetric):
    """Wall-clock seconds per example."""

    name = field = "seconds"
    description = "wall-clock seconds per example"


class ForwardPasses(CostMetric):
    """Rows that go through the model, per example."""

    name = field = "forward_passes"
    description = "rows that go through the model, per example"


class BackwardPasses(CostMetric):
    """Rows whose output's gradient goes back, per example."""

    name = field = "backward_passes"
    description = "rows whose output's gradient goes back, per example"


class PeakMemory(CostMetric):
    """Bytes of tensors at the highest point of explaining, per example."""

    name = field = "peak_memory"
    needs_peak_memory = True
    description = "bytes of tensors at the highest point of explaining, per example"
    undefined = "not measured"
