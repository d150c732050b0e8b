r"""The page that shows a comparison."""

from typing import NamedTuple

import numpy as np

from captum_attngrad.evaluation.plots import (
    ANCHORS,
    faithful_metric,
    metric_svg,
    wide_svgs,
)
from captum_attngrad.evaluation.results import ExplainedText
from captum_attngrad.evaluation.results import Results as Comparison
from captum_attngrad.evaluation.results.bootstrap import MIN_PAIRS
from captum_attngrad.evaluation.tables import (
    Column,
    format_number,
    property_columns,
    rank_columns,
    remarks,
)
from captum_attngrad.visualization import words
from captum_attngrad.visualization.page import data_uri, render_page

# More methods than this are counted in the findings, and not named.
_MAX_NAMED = 4


class Image(NamedTuple):
    """A chart: its data URI, and what it says for those who cannot see it."""

    source: str
    text: str


class Property(NamedTuple):
    """What was measured of a property."""

    name: str
    columns: list[Column]
    charts: list[Image]


def _property(comparison: Comparison, property: str) -> Property:
    charts = [
        _chart(comparison, metric.name)
        for metric in comparison.metrics
        # Cost has a chart of its own, against faithfulness.
        if metric.property == property != "cost"
    ]
    columns = property_columns(comparison, property)
    return Property(property.capitalize(), columns, charts)


def _chart(comparison: Comparison, metric: str) -> Image:
    values = ", ".join(
        f"{method.name} {format_number(mean, 2)}"
        for method, mean in zip(
            comparison.methods, comparison.means(metric), strict=True
        )
    )
    source = data_uri(metric_svg(comparison, metric), "image/svg+xml")
    return Image(source, f"Bar chart of {metric}: {values}.")


def _wide_charts(comparison: Comparison) -> list[Image]:
    said = (
        f"{faithful_metric(comparison)} of each method against its seconds per text",
        "Probability of the explained class as top-scored tokens are replaced, for "
        "each method",
    )
    return [
        Image(data_uri(svg, "image/svg+xml"), text)
        for svg, text in zip(wide_svgs(comparison), said, strict=True)
    ]


def _text(
    comparison: Comparison, number: int, text: ExplainedText
) -> words.ExplainedText:
    names = comparison.class_names
    label = None if text.label is None else names[text.label]
    title = words.heading(names[text.predicted], text.probability, label)
    rows = [
        words.row_of(method.name, text.tokens, text.scores[method.name])
        for method in comparison.finished
    ]
    return words.ExplainedText(f"{number}. {title}", rows)


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _leader(comparison: Comparison, property: str) -> tuple[int, str, list[bool]]:
    """The best method of a property, what shows it, and for each method whether it is
    the best or cannot be told apart from it. With no value at all the marks are
    False."""
    names = [method.name for method in comparison.methods]
    if property in comparison.ranked_properties:
        ranks = [comparison.average_rank(name, property).mean for name in names]
        marks = comparison.best_ranked(property)
        if not any(marks):
            return 0, "", marks
        best = int(np.nanargmin(ranks))
        return best, f"average rank {format_number(ranks[best], 1)}", marks
    metric = next(m for m in comparison.metrics if m.property == property)
    means = comparison.means(metric.name)
    marks = comparison.not_beaten(metric.name)
    if not any(marks):
        return 0, "", marks
    best = int(np.nanargmax(means if metric.higher_is_better else -means))
    return best, f"{metric.name} {format_number(means[best], 3)}", marks


def findings(comparison: Comparison) -> list[str]:
    r"""
    What a comparison found, in sentences: which method leads on which property, and
    which methods cannot be told apart from it.

    Args:
        comparison (Comparison): What was measured.

    Returns:
        *list of str*: A sentence for each property but cost, after one on the whole.
    """
    names = [method.name for method in comparison.methods]
    n = len(comparison.texts)
    said = [f"{len(comparison.finished)} methods explained {n} texts."]
    if comparison.failures:
        said.append(f"{_and(list(comparison.failures))} failed.")
    if n < MIN_PAIRS:
        said.append(
            f"With fewer than {MIN_PAIRS} texts no method can be told apart from "
            "another."
        )
    for property in comparison.properties:
        if property == "cost":
            continue
        best, evidence, marks = _leader(comparison, property)
        title = property.capitalize()
        if not any(marks):
            said.append(f"{title}: no method has a value.")
            continue
        rivals = [
            name
            for i, (name, mark) in enumerate(zip(names, marks, strict=True))
            if mark and i != best
        ]
        sentence = f"{title}: {names[best]} leads ({evidence})"
        if names[best] == "random":
            said.append(f"{title}: no method does better than random.")
        elif not rivals:
            said.append(f"{sentence}, ahead of every other method.")
        elif len(rivals) == len(comparison.finished) - 1:
            said.append(f"{sentence}, but no method can be told apart from it.")
        else:
            others = f"{len(rivals)} of {len(comparison.finished) - 1} other methods"
            if len(rivals) <= _MAX_NAMED:
                others = _and(rivals)
            said.append(f"{sentence}; {others} cannot be told apart from it.")
    return said


def _metric_descriptions(comparison: Comparison) -> dict[str, str]:
    described = {}
    for metric in comparison.metrics:
        better = "higher" if metric.higher_is_better else "lower"
        low, high = metric.value_range
        paper = f" ({metric.paper})" if metric.paper else ""
        described[metric.name] = (
            f"{metric.description}; property: {metric.property}; {better} is better, "
            f"from {low:g} to {high:g}{paper}"
        )
    return described


def comparison_page(comparison: Comparison, title: str, n_texts: int = 10) -> str:
    r"""
    A comparison as a whole HTML page that loads nothing from anywhere: what was found,
    the first texts with a row for each method, tables, charts and settings.

    Args:
        comparison (Comparison): What to show.
        title (str): Title of the page.
        n_texts (int, optional): How many texts are shown, from the first.
            Default: 10

    Returns:
        *str*: The page.
    """
    return render_page(
        "report.html",
        title,
        findings=findings(comparison),
        texts=[
            _text(comparison, number, text)
            for number, text in enumerate(comparison.texts[:n_texts], start=1)
        ],
        methods=[method.name for method in comparison.methods],
        ranks=rank_columns(comparison),
        n_texts=len(comparison.texts),
        anchors=[m.name for m in comparison.methods if m.name in ANCHORS],
        properties=[_property(comparison, name) for name in comparison.properties],
        remarks=remarks(comparison),
        wide_charts=_wide_charts(comparison),
        method_descriptions={m.name: m.description for m in comparison.methods},
        metric_descriptions=_metric_descriptions(comparison),
        settings=dict(comparison.settings),
    )
