r"""The page that shows a comparison."""

from html import escape

import torch

from captum_attngrad.compare.comparison import (
    Comparison,
    ExplainedText,
    arrow,
    format_number,
    format_seconds,
)
from captum_attngrad.compare.plots import figure_svg, plot_metric
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
.charts img { width: 100%; height: auto; }
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
    min-width: 11.5em; color: #595959; font-weight: 400; }
  .results { font-size: .85rem; }
}
"""


def _results_table(comparison: Comparison) -> str:
    head = "".join(
        f"<th scope='col'>{escape(metric.name)} {arrow(metric)}</th>"
        for metric in comparison.metrics
    )
    marks = [comparison.not_beaten(metric.name) for metric in comparison.metrics]
    rows = []
    for i, method in enumerate(comparison.methods):
        cells = []
        for metric, marked in zip(comparison.metrics, marks, strict=True):
            mean, low, high = comparison.interval(method.name, metric.name)
            number = format_number(mean, 3)
            if marked[i]:
                number = f"<span class='best'>{number}*</span>"
            interval = f"[{format_number(low, 3)}, {format_number(high, 3)}]"
            cells.append(
                f"<td data-label='{escape(metric.name)} {arrow(metric)}'>{number} "
                f"<span class='interval'>{interval}</span></td>"
            )
        rows.append(
            f"<tr><th scope='row'>{escape(method.name)}</th>{''.join(cells)}"
            "<td data-label='s/text'>"
            f"{format_seconds(comparison.seconds[i])}</td></tr>"
        )
    return (
        "<div class='scroll'><table class='results'><thead><tr><th scope='col'>method"
        f"</th>{head}<th scope='col'>s/text</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f"<p class='note'>Mean over {len(comparison.texts)} texts and, in brackets, "
        "its 95% bootstrap interval. ↑ higher is better, ↓ lower is better. * the "
        "best, or not distinguishable from the best (paired bootstrap, 95%). s/text: "
        "seconds that the method itself took for one text.</p>"
    )


def _charts(comparison: Comparison) -> str:
    images = []
    for metric in comparison.metrics:
        figure, _ = plot_metric(comparison, metric.name)
        means = {
            method.name: comparison.interval(method.name, metric.name).mean
            for method in comparison.methods
        }
        values = ", ".join(
            f"{name} {format_number(mean, 2)}" for name, mean in means.items()
        )
        alt = f"Bar chart of {metric.name}: {values}."
        images.append(image_tag(figure_svg(figure), "image/svg+xml", alt))
    return f"<div class='charts'>{''.join(images)}</div>"


def _sentence(comparison: Comparison, number: int, text: ExplainedText) -> str:
    predicted = comparison.class_names[text.predicted]
    heading = f"{number}. Predicted {predicted} ({text.probability:.2f})"
    true = "not given"
    if text.label is not None:
        true = comparison.class_names[text.label]
        right = text.label == text.predicted
        heading += ", as labelled" if right else f", labelled {true}"
    names = [method.name for method in comparison.methods]
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
        described[metric.name] = (
            f"{metric.description}; property: {metric.property}; {better} is better, "
            f"from {low:g} to {high:g} ({metric.paper})"
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
    methods = {method.name: method.description for method in comparison.methods}
    body = (
        f"<h1>{escape(title)}</h1>"
        f"{_results_table(comparison)}{_charts(comparison)}"
        f"<h2>The first {len(shown)} texts, one row a method</h2>{LEGEND}{sentences}"
        f"<h2>Methods</h2>{_description_list(methods)}"
        f"<h2>Metrics</h2>{_description_list(_metric_description(comparison))}"
        f"<h2>Settings</h2>{_description_list(dict(comparison.settings))}"
    )
    return render_page(title, body, _STYLE)
