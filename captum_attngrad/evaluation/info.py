r"""What a result remembers of its methods and metrics: all that is not code."""

from dataclasses import asdict, dataclass
from typing import Any

from captum_attngrad.evaluation.registry import Method
from captum_attngrad.metrics import Metric


@dataclass(frozen=True)
class MethodInfo:
    r"""
    A method that was compared.

    Args:
        name (str): Its name.
        description (str): One line: what is computed, with which settings.
    """

    name: str
    description: str

    @classmethod
    def of(cls, method: Method) -> "MethodInfo":
        """What there is to say of a method."""
        return cls(method.name, method.description)


@dataclass(frozen=True)
class MetricInfo:
    r"""
    A metric that was measured; see :class:`~captum_attngrad.metrics.Metric`.

    Args:
        name (str): Short name.
        property (str): Which property of an explanation is measured.
        higher_is_better (bool): Direction.
        value_range (tuple[float, float]): Lowest and highest possible value.
        best_value (float): The end that a perfect explanation tends to.
        paper (str): Where the measure comes from.
        description (str): What is measured, in one line.
        undefined (str): What it means that there is no value.
    """

    name: str
    property: str
    higher_is_better: bool
    value_range: tuple[float, float]
    best_value: float
    paper: str
    description: str
    undefined: str

    @classmethod
    def of(cls, metric: Metric) -> "MetricInfo":
        """What a metric declares about itself."""
        return cls(
            metric.name,
            metric.property,
            metric.higher_is_better,
            (float(metric.value_range[0]), float(metric.value_range[1])),
            float(metric.best_value),
            metric.paper,
            metric.description,
            metric.undefined,
        )

    def to_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "MetricInfo":
        """The reverse of :meth:`to_dict`."""
        low, high = fields["value_range"]
        return cls(**{**fields, "value_range": (low, high)})
