r"""The page that shows a comparison."""

from html import escape

import numpy as np
import torch

from captum_attngrad.compare.comparison import Comparison, ExplainedText
from captum_attngrad.compare.info import MetricInfo
from captum_attngrad.compare.plots import (
    faithful_metric,
    figure_svg,
    plot_cost,
    plot_curves,
    plot_metric,
)
from captum_attngrad.compare.tables import (
    arrow,
    format_number,
    format_seconds,
    missing,
    remarks,
)
from captum_attngrad.visualization import (
    LEGEND,
    image_tag,
    render_page,
    text_html,
    text_records,
)

# In the sentence tables Captum's first two columns (true and predicted class) would
# repeat the heading in every row, and sums of scores of different methods have
# different units, so only the method and the words are shown.
_STYLE = """
.scroll { overflow-x: auto; }
.results { width: 100%; font-variant-numeric: tabular-nums; }
.results th, .results td { padding: .35rem 1rem .35rem 0;
  border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
.results thead th { border-bottom: 2px solid #1b1b1b; }
.results tbody th { font-weight: 400; }
.results tbody th, .results tbody td { vertical-align: top; }
.results .best { font-weight: 700; }
.results .interval { color: #595959; font-weight: 400; }
.note { color: #595959; font-size: .9rem; }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.charts.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
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
  .results, .results tbody, .results tr, .results tbody th, .results td {
    display: block; }
  .results thead { display: none; }
  .results tr { padding: .4rem 0; border-bottom: 1px solid #e3e3e3; }
  .results tbody th { font-weight: 700; }
  .results tbody th, .results td { padding: 0; border: 0; }
  .results td::before { content: attr(data-label) " "; display: inline-block;
    min-width: 14em; padding-right: .3em; color: #595959; font-weight: 400; }
  .results { font-size: .85rem; }
}
"""


def _cell(comparison: Comparison, method: str, metric: MetricInfo, best: bool) -> str:
    mean, low, high = comparison.interval(method, metric.name)
    label = f"<td data-label='{escape(metric.name)} {arrow(metric)}'>"
    if not np.isfinite(mean):
        why = escape(missing(comparison, method, metric))
        return f"{label}<span class='interval'>{why}</span></td>"
    number = format_number(mean, 3)
    if best:
        number = f"<span class='best'>{number}*</span>"
    interval = f"[{format_number(low, 3)}, {format_number(high, 3)}]"
    return f"{label}{number} <span class='interval'>{interval}</span></td>"


def _rank(comparison: Comparison, method: str, property: str) -> str:
    mean, low, high = comparison.average_rank(method, property)
    found = (
        f"{format_number(mean, 1)} <span class='interval'>[{format_number(low, 1)}, "
        f"{format_number(high, 1)}]</span>"
        if np.isfinite(mean)
        else "<span class='interval'>failed</span>"
    )
    return f"<td data-label='average rank ↓'>{found}</td>"


def _results_table(comparison: Comparison, property: str) -> str:
    metrics = [m for m in comparison.metrics if m.property == property]
    ranked = len(metrics) > 1
    first = property == comparison.properties[0]
    heads = ["average rank ↓"] * ranked + ["s/text"] * first
    heads += [f"{escape(metric.name)} {arrow(metric)}" for metric in metrics]
    marks = [comparison.not_beaten(metric.name) for metric in metrics]
    rows = []
    for i, method in enumerate(comparison.methods):
        cells = []
        if ranked:
            cells.append(_rank(comparison, method.name, property))
        if first:
            seconds = format_seconds(comparison.seconds[i])
            cells.append(f"<td data-label='s/text'>{seconds}</td>")
        cells += [
            _cell(comparison, method.name, metric, marked[i])
            for metric, marked in zip(metrics, marks, strict=True)
        ]
        rows.append(
            f"<tr><th scope='row'>{escape(method.name)}</th>{''.join(cells)}</tr>"
        )
    head = "".join(f"<th scope='col'>{text}</th>" for text in ["method", *heads])
    return (
        f"<div class='scroll'><table class='results'><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _notes(comparison: Comparison) -> str:
    found = "".join(f"<li>{escape(line)}</li>" for line in remarks(comparison))
    return f"<ul class='note'>{found}</ul>" if found else ""


_READING = (
    "<p class='note'>Mean over {n} texts and, in brackets, its 95% bootstrap interval. "
    "↑ higher is better, ↓ lower is better. * the best, or not distinguishable from "
    "the best (paired bootstrap, 95%, not corrected for the number of comparisons). "
    "Average rank: over the metrics of the property, 1 is best. s/text: seconds that "
    "the method itself took for one text. Grey bars are the anchors: leave_one_out, "
    "and random scores.</p>"
)


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
        f"<h2>{escape(property.capitalize())}</h2>"
        f"{_results_table(comparison, property)}{_charts(comparison, property)}"
        for property in comparison.properties
    )
    methods = {method.name: method.description for method in comparison.methods}
    body = (
        f"<h1>{escape(title)}</h1>{_READING.format(n=len(comparison.texts))}"
        f"{results}{_notes(comparison)}{_wide_charts(comparison)}"
        f"<h2>The first {len(shown)} texts, one row a method</h2>{LEGEND}{sentences}"
        f"<h2>Methods</h2>{_description_list(methods)}"
        f"<h2>Metrics</h2>{_description_list(_metric_description(comparison))}"
        f"<h2>Settings</h2>{_description_list(dict(comparison.settings))}"
    )
    return render_page(title, body, _STYLE)
