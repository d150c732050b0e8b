r"""The data of a comparison and its statistics."""

from captum_attngrad.evaluation.results.bootstrap import Interval
from captum_attngrad.evaluation.results.info import MethodInfo, MetricInfo
from captum_attngrad.evaluation.results.results import CURVE, Results
from captum_attngrad.evaluation.results.texts import ExplainedText

__all__ = [
    "CURVE",
    "ExplainedText",
    "Interval",
    "MethodInfo",
    "MetricInfo",
    "Results",
]
