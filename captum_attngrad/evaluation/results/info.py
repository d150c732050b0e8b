r"""What a comparison records about its methods and metrics."""

from dataclasses import asdict, dataclass, fields
from typing import Any

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


@dataclass(frozen=True)
class MetricInfo:
    r"""
    A metric that was measured; see :class:`~captum_attngrad.metrics.Metric`.

    Args:
        name (str): Short name.
        property (str): Which property of an explanation is measured.
        higher_is_better (bool): Direction.
        value_range (tuple[float, float]): Lowest and highest possible value.
        best_value (float): The end of the range that a perfect explanation approaches.
        paper (str): Where the measure comes from.
        description (str): What is measured, in one line.
        undefined (str): Why a value may be missing.
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
        return cls.from_dict({f.name: getattr(metric, f.name) for f in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MetricInfo":
        """The reverse of :meth:`to_dict`."""
        low, high = values["value_range"]
        limits = (float(low), float(high))
        best = float(values["best_value"])
        return cls(**{**values, "value_range": limits, "best_value": best})
