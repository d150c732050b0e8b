"""Only one module of the attributions runs models and differentiates their outputs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import captum_attngrad.attr

ROOT = Path(captum_attngrad.attr.__file__).parent
MODULES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))
RUNS = "_core/run.py"
# Derivatives that are not of a model's output.
REASONS = {
    "_core/products.py": "A^T x is the value gradient of one more fused call",
    "path/_multipliers.py": "the derivative of one operation, not of an output",
}


def found_in(source: str) -> list[str]:
    """What runs a model or differentiates, as text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        arguments = list(map(ast.unparse, node.args))
        runs = called.endswith("forward_func") or "uncompiled(self.forward" in called
        differentiates = called.endswith(("autograd.grad", "autograd.backward"))
        backward = called.endswith(".backward") and not arguments
        if runs or differentiates or backward:
            found.append(called)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_other_module_runs_or_differentiates(module: str) -> None:
    found = found_in((ROOT / module).read_text())
    expected = module == RUNS or module in REASONS
    assert bool(found) is expected, found


@pytest.mark.parametrize(
    "line",
    [
        "self.forward_func(x)",
        "uncompiled(self.forward_func)(x)",
        "torch.autograd.grad(s, x)",
        "s.sum().backward()",
    ],
)
def test_such_lines_are_found(line: str) -> None:
    assert found_in(line)


@pytest.mark.parametrize("module", MODULES)
def test_no_class_reaches_into_the_private_parts_of_another(module: str) -> None:
    """``x._name`` only for ``self``, ``cls``, ``super()`` and what a module defines."""
    tree = ast.parse((ROOT / module).read_text())
    own = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
            continue
        if node.attr.startswith("__") or node.attr in own | NAMED_TUPLE:
            continue
        owner = ast.unparse(node.value)
        assert owner in ("self", "cls", "super()") or (module, node.attr) in OF_TORCH, (
            f"{owner}.{node.attr} in line {node.lineno}"
        )


NAMED_TUPLE = {"_replace", "_asdict", "_fields"}  # public in spite of their names
# torch offers no public way to these.
OF_TORCH = {
    ("_core/environment.py", "_parameters"),
}
