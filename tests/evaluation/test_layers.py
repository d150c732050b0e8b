"""Imports between the packages of metrics and evaluation go down only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "captum_attngrad"

# What each package may not import. Reference models, the layers above, and within
# evaluation the façade.
FORBIDDEN = {
    "capture": ("attr", "metrics", "evaluation", "cli", "models"),
    "attr": ("metrics", "evaluation", "cli", "models"),
    "metrics": ("evaluation", "cli", "models"),
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


def modules(package: str) -> dict[str, set[str]]:
    """The modules of a package, and those of it that each imports."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = set(imported(path))
    return {name: names & found.keys() - {name} for name, names in found.items()}


@pytest.mark.parametrize("package", ["metrics", "evaluation"])
def test_no_module_imports_itself_through_others(package: str) -> None:
    graph = modules(package)
    # A package's __init__ is imported by whatever imports one of its modules.
    packages = {
        name for name in graph if (ROOT.parent / name.replace(".", "/")).is_dir()
    }
    while graph:
        free = [name for name, names in graph.items() if not names & graph.keys()]
        if not free:
            break
        graph = {name: names for name, names in graph.items() if name not in free}
    assert not graph.keys() - packages, sorted(graph)
