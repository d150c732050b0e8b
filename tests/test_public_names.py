"""What the root of the package exports."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import captum_attngrad
from captum_attngrad._moved import MOVED

NAMES = """
AttentionDeepLift AttentionGradient AttentionRelevance AttentionRollout AttentionWeights
Comparison IntegratedAttentionGradient JointIntegratedGradients LLMAttentionGradient
LayerAttentionGradient Method Metric SequenceAttentionGradient TextModel
capture_attention compare find_attention_layers log_odds merge_word_pieces
plot_alignment plot_heads plot_metric plot_token_scores register_method save_html
text_html text_records verify
"""


def test_the_root_exports_what_the_readme_uses_and_no_more() -> None:
    assert captum_attngrad.__all__ == NAMES.split()
    assert all(callable(getattr(captum_attngrad, name)) for name in NAMES.split())


@pytest.mark.parametrize("name", MOVED)
def test_names_that_have_moved_still_work(name: str) -> None:
    home = importlib.import_module(f"captum_attngrad.{MOVED[name]}")
    with pytest.warns(DeprecationWarning, match=rf"from {home.__name__} import {name}"):
        assert getattr(captum_attngrad, name) is getattr(home, name)


def test_other_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'attention'"):
        captum_attngrad.attention  # noqa: B018


def test_compare_is_the_function() -> None:
    assert captum_attngrad.compare.__module__.startswith("captum_attngrad.evaluation.")


def test_importing_draws_in_no_pyplot_and_no_extra() -> None:
    code = (
        "import sys, captum_attngrad\n"
        "extras = ('matplotlib.pyplot', 'transformers', 'sklearn', 'pandas', 'IPython')"
        "\nprint([name for name in extras if name in sys.modules])"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    before = subprocess.run(
        [sys.executable, "-c", code.replace(", captum_attngrad", ", captum.attr")],
        capture_output=True,
        text=True,
        check=True,
    )
    # What Captum itself imports is not ours to leave out.
    assert outcome.stdout == before.stdout
