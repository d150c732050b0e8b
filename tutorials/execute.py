"""Run the notebooks from top to bottom.

python tutorials/execute.py              run all; nothing is written
python tutorials/execute.py --write      run all and keep the new outputs
python tutorials/execute.py 01_quickstart.ipynb

"All" leaves out the one for torchtext, which needs another version of torch: run it by
name, with the Python of .venv-torchtext.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TORCHTEXT = "05_torchtext_pipeline.ipynb"
METADATA = {
    "kernelspec": {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}


def execute(path: Path) -> Any:
    """The notebook with new outputs; raises where a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    # Long enough to train a model that is not in the cache, on one core.
    NotebookClient(
        notebook, timeout=1800, kernel_name="python3", coalesce_streams=True
    ).execute()
    # Drop what changes from run to run, or names this machine.
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def write(notebook: Any, path: Path) -> None:
    import nbformat

    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, delete=False, encoding="utf-8"
    ) as file:
        nbformat.write(notebook, file)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", help="file names; default: all")
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    options = parser.parse_args()
    every = sorted(path.name for path in FOLDER.glob("*.ipynb"))
    for name in options.notebooks or [name for name in every if name != TORCHTEXT]:
        path = FOLDER / name
        notebook = execute(path)
        if options.write:
            write(notebook, path)
        print(f"{path.name}: ran from top to bottom")


if __name__ == "__main__":
    main()
