r"""The page that shows a comparison."""

import math
from html import escape

import numpy as np
import torch

from captum_attngrad.evaluation.plots import (
    ANCHORS,
    faithful_metric,
    figure_svg,
    plot_cost,
    plot_curves,
    plot_metric,
)
from captum_attngrad.evaluation.results import ExplainedText, Interval, MetricInfo
from captum_attngrad.evaluation.results import Results as Comparison
from captum_attngrad.evaluation.tables import (
    arrow,
    format_number,
    format_seconds,
    missing,
    remarks,
    unranked,
)
from captum_attngrad.visualization import (
    LEGEND,
    image_tag,
    render_page,
    text_html,
    text_records,
)

# Columns of metrics that fit beside the names on a wide screen.
_COLUMNS = 4

# In the sentence tables Captum's first two columns (true and predicted class) would
# repeat the heading in every row, and sums of scores of different methods have
# different units, so only the method and the words are shown.
_STYLE = """
.scroll { overflow-x: auto; }
.results { width: 100%; font-variant-numeric: tabular-nums; }
.results th, .results td { padding: .35rem 1rem .35rem 0;
  border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
.results thead th { border-bottom: 2px solid #1b1b1b; }
.scroll + .scroll { margin-top: 1.5rem; }
.results tbody th { font-weight: 400; }
.results tbody th, .results tbody td { vertical-align: top; }
.results th:first-child { position: sticky; left: 0; background: #fff; }
.results .best { font-weight: 700; }
.results .interval { color: #595959; font-weight: 400; }
.note { color: #595959; font-size: .9rem; }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.charts.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr));
  margin-top: 2rem; }
.charts img { width: 100%; height: auto; }
.charts > img { margin-top: 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; }
dt { color: #595959; }
dd { margin: 0; overflow-wrap: anywhere; }
.sentence tr:has(th), .sentence td:nth-child(-n+2), .sentence td:nth-child(4) {
  display: none; }
.sentence td:nth-child(3) { width: 11rem; white-space: nowrap; }
.sentence td b { font-weight: 400; color: #595959; }
@media (max-width: 40rem) {
  .sentence td { display: block; padding: 0; }
  .sentence td:nth-child(3) { padding-top: .4rem; font-size: .85rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  .results th:first-child { white-space: normal; min-width: 7.5rem; }
  .results { font-size: .85rem; }
}
"""


def _number(interval: Interval, digits: int, best: bool) -> str:
    mean, low, high = (format_number(number, digits) for number in interval)
    if best:
        mean = f"<span class='best'>{mean}*</span>"
    return f"{mean} <span class='interval'>[{low}, {high}]</span>"


def _column(head: str, cells: list[str]) -> list[str]:
    return [f"<th scope='col'>{head}</th>", *(f"<td>{cell}</td>" for cell in cells)]


def _metric_column(comparison: Comparison, metric: MetricInfo) -> list[str]:
    cells = []
    marks = comparison.not_beaten(metric.name)
    for method, marked in zip(comparison.methods, marks, strict=True):
        found = comparison.interval(method.name, metric.name)
        if np.isfinite(found.mean):
            cells.append(_number(found, 3, marked))
        else:
            why = escape(missing(comparison, method.name, metric))
            cells.append(f"<span class='interval'>{why}</span>")
    return _column(f"{escape(metric.name)} {arrow(metric)}", cells)


def _rank_column(comparison: Comparison, property: str) -> list[str]:
    cells = []
    marks = comparison.best_ranked(property)
    for method, marked in zip(comparison.methods, marks, strict=True):
        found = comparison.average_rank(method.name, property)
        why = f"<span class='interval'>{unranked(comparison, method)}</span>"
        there = np.isfinite(found.mean)
        cells.append(_number(found, 1, marked) if there else why)
    return _column(f"{escape(property)} ↓", cells)


def _seconds_column(comparison: Comparison) -> list[str]:
    return _column("s/text", [format_seconds(s) for s in comparison.seconds])


def _table(
    comparison: Comparison, columns: list[list[str]], most: int = _COLUMNS
) -> str:
    """Columns beside the methods' names, at most so many in a table."""
    names = [
        f"<th scope='row'>{escape(method.name).replace('_', '_<wbr>')}</th>"
        for method in comparison.methods
    ]
    tables = []
    n_tables = math.ceil(len(columns) / most)
    for i in range(n_tables):
        # The same number in each, or nearly so.
        start, end = (k * len(columns) // n_tables for k in (i, i + 1))
        lines = zip(*columns[start:end], strict=True)
        head, *rows = ("".join(line) for line in lines)
        body = "".join(
            f"<tr>{name}{row}</tr>" for name, row in zip(names, rows, strict=True)
        )
        tables.append(
            "<table class='results'><thead><tr><th scope='col'>method</th>"
            f"{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    return "".join(f"<div class='scroll'>{table}</div>" for table in tables)


def _overview(comparison: Comparison) -> str:
    """Average ranks; without any, there is nothing to look over."""
    ranked = comparison.ranked_properties
    if not ranked:
        return ""
    columns = [_rank_column(comparison, property) for property in ranked]
    columns.append(_seconds_column(comparison))
    table = _table(comparison, columns, most=len(columns))
    return f"<h2>Average rank, by property</h2>{table}"


def _results(comparison: Comparison, property: str) -> str:
    columns = [
        _metric_column(comparison, metric)
        for metric in comparison.metrics
        if metric.property == property
    ]
    if not comparison.ranked_properties and property == comparison.properties[0]:
        columns.append(_seconds_column(comparison))
    # Cost has a chart of its own, against faithfulness.
    charts = "" if property == "cost" else _charts(comparison, property)
    return (
        f"<h2>{escape(property.capitalize())}</h2>{_table(comparison, columns)}{charts}"
    )


def _notes(comparison: Comparison) -> str:
    found = "".join(f"<li>{escape(line)}</li>" for line in remarks(comparison))
    return f"<ul class='note'>{found}</ul>" if found else ""


_READING = (
    "<p class='note'>Mean over {n} texts and, in brackets, its 95% bootstrap interval. "
    "↑ higher is better, ↓ lower is better. * the best, or not distinguishable from "
    "the best (paired bootstrap, 95%, not corrected for the number of comparisons). "
    "Average rank: over the metrics of the property, 1 is best. s/text: seconds that "
    "the method itself took for one text. What each metric measures is said at the end "
    "of the page.{anchors}</p>"
)


def _reading(comparison: Comparison) -> str:
    there = [m.name for m in comparison.methods if m.name in ANCHORS]
    anchors = f" Grey bars are the anchors: {' and '.join(there)}." if there else ""
    return _READING.format(n=len(comparison.texts), anchors=anchors)


def _charts(comparison: Comparison, property: str) -> str:
    images = []
    for metric in comparison.metrics:
        if metric.property != property:
            continue
        figure, _ = plot_metric(comparison, metric.name)
        means = dict(
            zip(
                (method.name for method in comparison.methods),
                comparison.means(metric.name),
                strict=True,
            )
        )
        values = ", ".join(
            f"{name} {format_number(mean, 2)}" for name, mean in means.items()
        )
        alt = f"Bar chart of {metric.name}: {values}."
        images.append(image_tag(figure_svg(figure), "image/svg+xml", alt))
    return f"<div class='charts'>{''.join(images)}</div>"


def _wide_charts(comparison: Comparison) -> str:
    metric = faithful_metric(comparison)
    charts = {
        f"{metric} of each method against its seconds per text": plot_cost(
            comparison, metric
        ),
        "Probability of the explained class as top-scored tokens are replaced, for "
        "each method": plot_curves(comparison),
    }
    images = "".join(
        image_tag(figure_svg(figure), "image/svg+xml", alt)
        for alt, figure in charts.items()
    )
    return f"<div class='charts wide'>{images}</div>"


def _sentence(comparison: Comparison, number: int, text: ExplainedText) -> str:
    predicted = comparison.class_names[text.predicted]
    heading = f"{number}. Predicted {predicted} ({text.probability:.2f})"
    true = "not given"
    if text.label is not None:
        true = comparison.class_names[text.label]
        right = text.label == text.predicted
        heading += ", as labelled" if right else f", labelled {true}"
    names = [method.name for method in comparison.finished]
    records = text_records(
        [text.tokens] * len(names),
        [torch.as_tensor(text.scores[name]) for name in names],
        pred_prob=text.probability,
        pred_class=predicted,
        true_class=true,
        attr_class=names,
    )
    return (
        f"<h3>{escape(heading)}</h3>"
        f"<div class='captum sentence'>{text_html(records)}</div>"
    )


def _description_list(pairs: dict[str, str]) -> str:
    items = "".join(
        f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>"
        for term, text in pairs.items()
    )
    return f"<dl>{items}</dl>"


def _metric_description(comparison: Comparison) -> dict[str, str]:
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
    A comparison as a whole HTML page that loads nothing from anywhere.

    Args:
        comparison (Comparison): What to show.
        title (str): Title of the page.
        n_texts (int, optional): How many texts are shown, from the first.
            Default: 10

    Returns:
        *str*: The page.

    Raises:
        ImportError: If IPython, which Captum's ``visualize_text`` needs, is missing.
    """
    shown = comparison.texts[:n_texts]
    sentences = "".join(
        _sentence(comparison, number, text)
        for number, text in enumerate(shown, start=1)
    )
    results = "".join(
        _results(comparison, property) for property in comparison.properties
    )
    methods = {method.name: method.description for method in comparison.methods}
    body = (
        f"<h1>{escape(title)}</h1>{_reading(comparison)}"
        f"{_overview(comparison)}{results}{_notes(comparison)}{_wide_charts(comparison)}"
        f"<h2>The first {len(shown)} texts, one row a method</h2>{LEGEND}{sentences}"
        f"<h2>Methods</h2>{_description_list(methods)}"
        f"<h2>Metrics</h2>{_description_list(_metric_description(comparison))}"
        f"<h2>Settings</h2>{_description_list(dict(comparison.settings))}"
    )
    return render_page(title, body, _STYLE)
