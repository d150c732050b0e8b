"""Every private name of Captum that the package uses is there, in one module."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import captum
import pytest
import torch

import captum_attngrad
from captum_attngrad import _captum

ROOT = Path(captum_attngrad.__file__).parent


@pytest.mark.parametrize("name", _captum.PRIVATE_NAMES)
def test_private_name(name: str) -> None:
    module = _captum.PRIVATE_NAMES[name]
    try:
        found = _captum.private(name)
    except ImportError as error:
        pytest.fail(f"captum {captum.__version__} has moved {module}.{name}: {error}")
    assert found is not None


def test_a_name_that_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("_gone", "captum._utils.common"), ("x", "captum._gone")):
        monkeypatch.setitem(_captum.PRIVATE_NAMES, name, module)
        with pytest.raises(ImportError, match=rf"captum {captum.__version__} has no "):
            _captum.private(name)


def test_no_other_module_imports_what_is_private() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        module = str(path.relative_to(ROOT))
        if module == "_captum.py":
            continue
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module.split(".")[0] == "captum":
                    found |= {node.module for name in names if "._" in name}
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                found |= {n for n in names if n.startswith("captum.") and "._" in n}
        assert not found, module


def test_an_import_needs_no_private_name() -> None:
    code = """
import captum_attngrad._captum as ours
ours.private = None  # nothing may be looked up
import captum_attngrad.attr
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_functions_return() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert _captum.formatted_inputs(x)[0] is x
    assert _captum.formatted_arguments(None) == ()
    assert _captum.formatted_arguments(3) == (3,)
    assert _captum.repeated_arguments((), 2) == ()
    (twice,) = _captum.repeated_arguments((x,), 2)
    assert torch.equal(twice, torch.cat([x, x]))
    assert _captum.repeated_target([0, 1], 2) == [0, 1, 0, 1]
    assert _captum.selected_outputs(x, [2, 0]).flatten().tolist() == [2.0, 3.0]
    assert "gausslegendre" in _captum.integration_methods()
    points = _captum.integration_points("riemann_middle", 2)
    assert points == [(0.25, 0.5), (0.75, 0.5)]
    assert _captum.default_generation_arguments()["do_sample"] is False
