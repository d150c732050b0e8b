r"""Explanation methods side by side: methods × metrics, with intervals and a report."""

from captum_attngrad.evaluation import methods as _built_in  # noqa: F401  registers them
from captum_attngrad.evaluation.comparison import Comparison
from captum_attngrad.evaluation.metric_names import available_metrics, default_metrics
from captum_attngrad.evaluation.plots import plot_metric
from captum_attngrad.evaluation.registry import (
    Method,
    available_methods,
    captum_method,
    register_method,
)
from captum_attngrad.evaluation.results import (
    ExplainedText,
    Interval,
    MethodInfo,
    MetricInfo,
)
from captum_attngrad.evaluation.run import compare
from captum_attngrad.text import TextBatch, TextModel

__all__ = [
    "Comparison",
    "ExplainedText",
    "Interval",
    "Method",
    "MethodInfo",
    "MetricInfo",
    "TextBatch",
    "TextModel",
    "available_methods",
    "available_metrics",
    "captum_method",
    "compare",
    "default_metrics",
    "plot_metric",
    "register_method",
]
