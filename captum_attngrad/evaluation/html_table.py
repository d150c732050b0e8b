r"""A comparison as a small HTML table, for notebooks."""

from html import escape

from captum_attngrad.evaluation.results import Interval, Results
from captum_attngrad.evaluation.tables import arrow, format_number, format_seconds


def _cell(interval: Interval, best: bool, digits: int) -> str:
    mean, low, high = (format_number(value, digits) for value in interval)
    mean = f"<b>{mean}</b>" if best else mean
    return f"<td>{mean} <small>[{low}, {high}]</small></td>"


def html_table(results: Results) -> str:
    r"""
    Methods × properties with average ranks, or methods × metrics if no property has
    several metrics. It loads and runs nothing.

    Args:
        results (Results): The numbers.

    Returns:
        *str*: A ``<table>``.
    """
    columns: dict[str, list[str]] = {}
    names = [method.name for method in results.methods]
    for property in results.ranked_properties:
        columns[f"{property} ↓"] = [
            _cell(results.average_rank(name, property), best, 1)
            for name, best in zip(names, results.best_ranked(property), strict=True)
        ]
    caption = "average rank (1 is best) [95% interval]"
    if not columns:
        caption = "mean [95% interval]"
        for metric in results.metrics:
            best_ones = results.not_beaten(metric.name)
            columns[f"{metric.name} {arrow(metric)}"] = [
                _cell(results.interval(name, metric.name), best, 3)
                for name, best in zip(names, best_ones, strict=True)
            ]
    seconds = [f"<td>{format_seconds(value)}</td>" for value in results.seconds]
    columns["s/text"] = seconds
    head = "".join(f"<th>{escape(title)}</th>" for title in ("method", *columns))
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>"
        for name, *cells in zip(names, *columns.values(), strict=True)
    )
    return (
        f"<table><caption>{len(results.texts)} texts, {caption}. Bold: the best, or "
        "not significantly worse.</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )
