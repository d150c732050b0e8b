"""The report: its findings in sentences, and its order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captum_attngrad.evaluation import Comparison, compare
from captum_attngrad.evaluation.report import findings
from tests.evaluation.planted import planted_text_model, planted_texts


@pytest.fixture(scope="module")
def result() -> Comparison:
    return compare(
        planted_text_model(),
        planted_texts(12),
        methods=["leave_one_out", "attention_weights", "random"],
        metrics=["comprehensiveness", "forward_passes"],
        show_progress=False,
    )


def measured(result: Comparison, *rows: float) -> Comparison:
    """A comparison in which each method has one value for every text."""
    values = result.values.copy()
    noise = np.linspace(-0.01, 0.01, values.shape[2])
    for row, value in enumerate(rows):
        values[row, 0] = value + (noise if row % 2 else -noise)
    return replace(result, values=values)


def test_the_leader_and_what_cannot_be_told_apart_are_named(
    result: Comparison,
) -> None:
    assert findings(measured(result, 0.9, 0.5, 0.1)) == [
        "3 methods explained 12 texts.",
        "Faithfulness: leave_one_out leads (comprehensiveness 0.900), ahead of every "
        "other method.",
    ]
    (_, two) = findings(measured(result, 0.9, 0.9, 0.1))
    assert two.endswith("cannot be told apart from it.")
    assert "random" not in two
    failed = replace(measured(result, 0.9, 0.9, np.nan), failures={"random": "why"})
    assert findings(failed)[2].endswith("but no method can be told apart from it.")


def test_nothing_is_said_to_lead_where_random_does_as_well(
    result: Comparison,
) -> None:
    (_, said) = findings(measured(result, 0.1, 0.2, 0.9))
    assert said == "Faithfulness: no method does better than random."


def test_failures_few_texts_and_missing_values_are_said(result: Comparison) -> None:
    failed = replace(result, failures={"random": "it broke"})
    assert "random failed." in findings(failed)
    nothing = measured(result, np.nan, np.nan, np.nan)
    assert findings(nothing)[1] == "Faithfulness: no method has a value."
    few = compare(
        planted_text_model(),
        planted_texts(2),
        methods=["leave_one_out", "random"],
        metrics=["comprehensiveness"],
        show_progress=False,
    )
    assert "With fewer than 6 texts no method can be told apart" in findings(few)[1]


def test_the_page_starts_with_the_findings_and_the_texts(
    result: Comparison, tmp_path: Path
) -> None:
    page = result.to_html(tmp_path / "i.html", "<T>", n_texts=2).read_text("utf-8")
    places = [
        page.index(part)
        for part in (
            "<h1>&lt;T&gt;</h1>",
            "3 methods explained 12 texts.",
            "The first 2 texts",
            "<h2>Faithfulness</h2>",
            "<h2>Settings</h2>",
        )
    ]
    assert places == sorted(places)
    assert page.count("<h3>") == 2
    assert "http://" not in page
    assert "<script" not in page
    assert 'title="' in page
