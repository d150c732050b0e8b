"""The installed package explains a model and answers on the command line.

`make wheel` runs this in an environment with the core dependencies alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch

import captum_attngrad
from captum_attngrad import AttentionGradient, save_html, verify

EXTRAS = ("pandas", "sklearn", "IPython", "transformers", "platformdirs")


def main() -> None:
    installed = Path(captum_attngrad.__file__)
    assert "site-packages" in installed.parts, installed
    assert (installed.parent / "py.typed").exists()
    here = [name for name in EXTRAS if find_spec(name) is not None]
    assert not here, f"not core dependencies, but installed: {', '.join(here)}"

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(10, 8),
        torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        torch.nn.Flatten(),
        torch.nn.Linear(40, 2),
    ).eval()
    input_ids = torch.randint(0, 10, (2, 5))
    scores = AttentionGradient(model).attribute(input_ids, target=1)
    assert scores.shape == input_ids.shape
    assert scores.abs().sum() > 0
    assert verify(model, input_ids)

    with tempfile.TemporaryDirectory() as folder:  # the page's template is installed
        page = Path(folder, "page.html")
        save_html("<p>words</p>", str(page))
        assert "words" in page.read_text(encoding="utf-8")

    for command in (["--help"], ["--version"]):
        call = [sys.executable, "-m", "captum_attngrad", *command]
        shown = subprocess.run(call, capture_output=True, text=True, check=True).stdout
        assert "captum-attngrad" in shown, shown
    print(f"captum_attngrad {captum_attngrad.__version__}: the wheel works")


if __name__ == "__main__":
    main()
