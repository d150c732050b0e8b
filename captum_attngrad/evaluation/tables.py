r"""A comparison as plain text, and numbers as they are set."""

import textwrap
from collections.abc import Sequence

import numpy as np

from captum_attngrad.evaluation.results import Interval, MethodInfo, MetricInfo
from captum_attngrad.evaluation.results import Results as Comparison

_WIDTH = 100


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


def unranked(comparison: "Comparison", method: MethodInfo) -> str:
    """Why a method has no rank for a property: it failed, or no method has a value."""
    return "failed" if method.name in comparison.failures else "no value"


def remarks(comparison: "Comparison") -> list[str]:
    """What failed or could not be measured, each in a line, reasons once, and how the
    perturbations went."""
    lines = [f"{name} failed: {why}" for name, why in comparison.failures.items()]
    lines += [
        f"{name} {value:.3g}, mean over the texts"
        for name, value in comparison.diagnostics.items()
    ]
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
                everyone = len(methods) == len(comparison.finished)
                of = "each method" if everyone else ", ".join(methods)
                lines.append(
                    f"{metric.name} over {n} of {len(comparison.texts)} texts for "
                    f"{of}{said}"
                )
    return lines


def _with_intervals(cells: Sequence[Interval | str], digits: int) -> list[str]:
    """Numbers under each other, as wide as the widest needs; words as they are."""
    found = [
        cell
        if isinstance(cell, str)
        else tuple(format_number(number, digits) for number in cell)
        for cell in cells
    ]
    numbers = [cell for cell in found if isinstance(cell, tuple)]
    widths = [max(len(part) for part in parts) for parts in zip(*numbers, strict=True)]
    lines = []
    for cell in found:
        if isinstance(cell, str):
            lines.append(cell)
            continue
        mean, low, high = map(str.rjust, cell, widths)
        lines.append(f"{mean} [{low}, {high}]")
    return lines


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


def _column(
    title: str, cells: Sequence[Interval | str], marks: Sequence[bool], digits: int
) -> list[str]:
    numbers = _with_intervals(cells, digits)
    return [
        title,
        *(
            cell + ("*" if marked else " ")
            for cell, marked in zip(numbers, marks, strict=True)
        ),
    ]


def _metric_column(comparison: "Comparison", metric: MetricInfo) -> list[str]:
    cells: list[Interval | str] = []
    for method in comparison.methods:
        found = comparison.interval(method.name, metric.name)
        there = np.isfinite(found.mean)
        cells.append(found if there else missing(comparison, method.name, metric))
    marks = comparison.not_beaten(metric.name)
    return _column(f"{metric.name} {arrow(metric)}", cells, marks, 3)


def _rank_column(comparison: "Comparison", property: str) -> list[str]:
    cells: list[Interval | str] = []
    for method in comparison.methods:
        found = comparison.average_rank(method.name, property)
        cells.append(found if np.isfinite(found.mean) else unranked(comparison, method))
    return _column(f"{property} ↓", cells, comparison.best_ranked(property), 1)


def text_table(comparison: "Comparison") -> str:
    """See :meth:`Comparison.table`."""
    names = ["method", *(method.name for method in comparison.methods)]
    seconds = ["s/text", *(format_seconds(s) for s in comparison.seconds)]
    ranked = comparison.ranked_properties
    blocks: list[tuple[str, list[list[str]]]] = []
    if ranked:
        columns = [_rank_column(comparison, property) for property in ranked]
        blocks.append(("AVERAGE RANK, BY PROPERTY", [*columns, seconds]))
    for property in comparison.properties:
        columns = [
            _metric_column(comparison, metric)
            for metric in comparison.metrics
            if metric.property == property
        ]
        if not blocks:
            columns.append(seconds)
        blocks.append((property.upper(), columns))
    lines: list[str] = []
    for title, columns in blocks:
        lines.append(title)
        for block in _blocks([names, *columns]):
            lines += [*_aligned(block), ""]
    lines += [
        f"Mean over {len(comparison.texts)} texts [95% bootstrap interval]. "
        "↑ higher is better, ↓ lower is better.",
        "* the best, or not distinguishable from it (paired bootstrap, 95%).",
    ]
    if ranked:
        lines.append("Rank 1 is the best; the mean over the metrics of the property.")
    for line in remarks(comparison):
        lines += textwrap.wrap(line, _WIDTH, subsequent_indent="  ")
    return "\n".join(lines)
