r"""A comparison as plain text, and numbers as they are set."""

import textwrap
from typing import NamedTuple

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
    """What failed or could not be measured, a line for each reason, and how the
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


class Cell(NamedTuple):
    """A cell of a table: a number with or without the bounds of its interval, or a note
    on why there is none."""

    value: str
    bounds: tuple[str, str] | None = None
    note: str = ""
    best: bool = False


class Column(NamedTuple):
    """A column of a table, with a cell for each method."""

    name: str
    cells: list[Cell]


def _cell(interval: Interval, digits: int, best: bool, note: str) -> Cell:
    if not np.isfinite(interval.mean):
        return Cell("", note=note)
    mean, low, high = (format_number(number, digits) for number in interval)
    return Cell(mean, (low, high), best=best)


def metric_column(comparison: "Comparison", metric: MetricInfo) -> Column:
    """The mean of a metric for each method, with its interval."""
    cells = [
        _cell(
            comparison.interval(method.name, metric.name),
            3,
            best,
            missing(comparison, method.name, metric),
        )
        for method, best in zip(
            comparison.methods, comparison.not_beaten(metric.name), strict=True
        )
    ]
    return Column(f"{metric.name} {arrow(metric)}", cells)


def rank_columns(comparison: "Comparison") -> list[Column]:
    """Average ranks by property, and the seconds; none if nothing is ranked."""
    columns = []
    for property in comparison.ranked_properties:
        cells = [
            _cell(
                comparison.average_rank(method.name, property),
                1,
                best,
                unranked(comparison, method),
            )
            for method, best in zip(
                comparison.methods, comparison.best_ranked(property), strict=True
            )
        ]
        columns.append(Column(f"{property} ↓", cells))
    return [*columns, _seconds_column(comparison)] if columns else []


def property_columns(comparison: "Comparison", property: str) -> list[Column]:
    """The metrics of a property; the seconds stand beside the first one if there are no
    ranks that they could stand beside."""
    columns = [
        metric_column(comparison, metric)
        for metric in comparison.metrics
        if metric.property == property
    ]
    if not comparison.ranked_properties and property == comparison.properties[0]:
        columns.append(_seconds_column(comparison))
    return columns


def _seconds_column(comparison: "Comparison") -> Column:
    return Column("s/text", [Cell(format_seconds(s)) for s in comparison.seconds])


def _lines(column: Column) -> list[str]:
    """Numbers aligned below each other; notes as they are."""
    parts = [(cell.value, *cell.bounds) for cell in column.cells if cell.bounds]
    widths = [max(map(len, part)) for part in zip(*parts, strict=True)]
    lines = [column.name]
    for cell in column.cells:
        text = cell.value or cell.note
        if cell.bounds:
            mean, low, high = map(str.rjust, (cell.value, *cell.bounds), widths)
            text = f"{mean} [{low}, {high}]"
        lines.append(text + ("*" if cell.best else " "))
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


def text_table(comparison: "Comparison") -> str:
    """See :meth:`Comparison.table`."""
    names = ["method", *(method.name for method in comparison.methods)]
    blocks = [("AVERAGE RANK, BY PROPERTY", rank_columns(comparison))]
    for property in comparison.properties:
        blocks.append((property.upper(), property_columns(comparison, property)))
    lines: list[str] = []
    for title, columns in blocks:
        lines += [title] if columns else []
        for block in _blocks([names, *map(_lines, columns)]) if columns else ():
            lines += [*_aligned(block), ""]
    lines += [
        f"Mean over {len(comparison.texts)} texts [95% bootstrap interval]. "
        "↑ higher is better, ↓ lower is better.",
        "* the best, or not distinguishable from it (paired bootstrap, 95%).",
    ]
    if comparison.ranked_properties:
        lines.append("Rank 1 is the best; the mean over the metrics of the property.")
    for line in remarks(comparison):
        lines += textwrap.wrap(line, _WIDTH, subsequent_indent="  ")
    return "\n".join(lines)
