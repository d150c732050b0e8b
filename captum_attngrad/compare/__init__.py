r"""Explanation methods side by side: methods × metrics, with intervals and a report."""

from captum_attngrad.compare import methods as _built_in  # noqa: F401  registers them
from captum_attngrad.compare.bootstrap import Interval
from captum_attngrad.compare.comparison import Comparison, ExplainedText
from captum_attngrad.compare.info import MethodInfo, MetricInfo
from captum_attngrad.compare.metric_names import available_metrics, default_metrics
from captum_attngrad.compare.plots import plot_metric
from captum_attngrad.compare.registry import (
    Method,
    available_methods,
    captum_method,
    register_method,
)
from captum_attngrad.compare.run import compare
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
