"""Imports between the parts of metrics and evaluation go down only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "captum_attngrad"

# What each part may not import; .importlinter has the rules between packages.
FORBIDDEN = {
    "metrics/functional": (
        "metrics.base",
        "metrics.consistency",
        "metrics.cost",
        "metrics.faithfulness",
        "metrics.reexplain",
        "metrics.resilience",
        "metrics.sanity",
        "metrics.sensitivity",
    ),
    "evaluation": ("cli", "models"),
    "evaluation/results": (
        "evaluation.comparison",
        "evaluation.engine",
        "evaluation.plots",
        "evaluation.registry",
        "evaluation.report",
        "evaluation.run",
        "evaluation.store",
        "evaluation.tables",
    ),
    "evaluation/store": (
        "evaluation.comparison",
        "evaluation.engine",
        "evaluation.plots",
        "evaluation.report",
        "evaluation.run",
        "evaluation.tables",
    ),
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_down(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in imported(path)
        for above in FORBIDDEN[package]
        if f"{name}.".startswith(f"captum_attngrad.{above}.")
    ]
    assert not wrong
