r"""A comparison as plain text, and numbers as they are set."""

from typing import TYPE_CHECKING

import numpy as np

from captum_attngrad.compare.info import MetricInfo

if TYPE_CHECKING:
    from captum_attngrad.compare.comparison import Comparison


_WIDTH = 110


def arrow(metric: MetricInfo) -> str:
    """The direction in which a metric gets better, as a sign."""
    return "↑" if metric.higher_is_better else "↓"


def format_number(value: float, digits: int) -> str:
    """A number as it is set in print: with a minus sign, and no negative zero."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        return text.removeprefix("-")
    return text.replace("-", "−")


def format_seconds(seconds: float) -> str:
    """Seconds with two significant digits, never in exponent notation."""
    if not np.isfinite(seconds):
        return "–"
    if seconds <= 0:
        return "0"
    digits = max(0, 1 - int(np.floor(np.log10(seconds))))
    return f"{seconds:.{digits}f}"


def missing(comparison: "Comparison", method: str, metric: MetricInfo) -> str:
    """Why a method has no value for a metric."""
    if method in comparison.failures:
        return "failed"
    if (method, metric.name) in comparison.notes:
        return "not measured"
    return metric.undefined or "no value"


def remarks(comparison: "Comparison") -> list[str]:
    """What failed or could not be measured, each in a line, reasons once."""
    lines = [f"{name} failed: {why}" for name, why in comparison.failures.items()]
    for metric in comparison.metrics:
        by_reason: dict[str, list[str]] = {}
        for (method, name), why in comparison.notes.items():
            if name == metric.name and method not in comparison.failures:
                by_reason.setdefault(why, []).append(method)
        for why, methods in by_reason.items():
            everyone = len(methods) == len(comparison.finished)
            of = "any method" if everyone else ", ".join(methods)
            lines.append(f"{metric.name} could not be measured for {of}: {why}")
        by_number: dict[int, list[str]] = {}
        for method in (m.name for m in comparison.finished):
            by_number.setdefault(comparison.n_values(method, metric.name), []).append(
                method
            )
        for n, methods in sorted(by_number.items()):
            if 0 < n < len(comparison.texts):
                said = f" (elsewhere: {metric.undefined})" if metric.undefined else ""
                lines.append(
                    f"{metric.name} over {n} of {len(comparison.texts)} texts for "
                    f"{', '.join(methods)}{said}"
                )
    return lines


def _cell(comparison: "Comparison", method: str, metric: MetricInfo) -> str:
    mean, low, high = comparison.interval(method, metric.name)
    if not np.isfinite(mean):
        return missing(comparison, method, metric)
    return f"{mean:6.3f} [{low:6.3f}, {high:6.3f}]"


def _aligned(columns: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    return lines


def _blocks(columns: list[list[str]]) -> list[list[list[str]]]:
    """Columns in blocks that fit, each with the first column, the names."""
    names, *rest = columns
    blocks = [[names]]
    used = room = max(len(cell) for cell in names)
    for column in rest:
        width = 2 + max(len(cell) for cell in column)
        if used + width > _WIDTH and len(blocks[-1]) > 1:
            blocks.append([names])
            used = room
        blocks[-1].append(column)
        used += width
    return blocks


def _metric_column(comparison: "Comparison", metric: MetricInfo) -> list[str]:
    marks = comparison.not_beaten(metric.name)
    return [f"{metric.name} {arrow(metric)}"] + [
        _cell(comparison, method.name, metric) + ("*" if marked else " ")
        for method, marked in zip(comparison.methods, marks, strict=True)
    ]


def _rank_column(comparison: "Comparison", property: str) -> list[str]:
    cells = ["average rank ↓"]
    for method in comparison.methods:
        mean, low, high = comparison.average_rank(method.name, property)
        found = f"{mean:4.1f} [{low:4.1f}, {high:4.1f}]"
        cells.append(found if np.isfinite(mean) else "failed")
    return cells


def text_table(comparison: "Comparison") -> str:
    """See :meth:`Comparison.table`."""
    names = ["method", *(method.name for method in comparison.methods)]
    seconds = ["s/text", *(format_seconds(s) for s in comparison.seconds)]
    lines: list[str] = []
    for i, property in enumerate(comparison.properties):
        chosen = [m for m in comparison.metrics if m.property == property]
        columns = [names, *(_metric_column(comparison, m) for m in chosen)]
        if len(chosen) > 1:
            columns.append(_rank_column(comparison, property))
        if i == 0:
            columns.append(seconds)
        lines.append(property.upper())
        for block in _blocks(columns):
            lines += [*_aligned(block), ""]
    lines += [
        f"Mean over {len(comparison.texts)} texts [95% bootstrap interval]. "
        "↑ higher is better, ↓ lower is better.",
        "* the best, or not distinguishable from it (paired bootstrap, 95%).",
        *remarks(comparison),
    ]
    return "\n".join(lines)
