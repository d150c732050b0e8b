r"""Explanation methods side by side: methods × metrics, with intervals and a report."""

from captum_attngrad.compare import methods as _built_in  # noqa: F401  registers them
from captum_attngrad.compare.bootstrap import Interval
from captum_attngrad.compare.comparison import Comparison, ExplainedText
from captum_attngrad.compare.plots import plot_metric
from captum_attngrad.compare.registry import (
    Method,
    available_methods,
    register_method,
)
from captum_attngrad.compare.run import compare
from captum_attngrad.compare.text_model import TextBatch, TextModel

__all__ = [
    "Comparison",
    "ExplainedText",
    "Interval",
    "Method",
    "TextBatch",
    "TextModel",
    "available_methods",
    "compare",
    "plot_metric",
    "register_method",
]
