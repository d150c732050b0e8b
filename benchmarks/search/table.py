"""The table of results, and where it goes."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

import captum
import numpy as np
import torch

from benchmarks.search.measures import MEASURES, Array
from captum_attngrad.evaluation.results.bootstrap import resampled_means

README = Path(__file__).parent / "README.md"


def versions() -> str:
    return (
        f"{platform.machine()}, {torch.get_num_threads()} thread(s) of "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, torch "
        f"{torch.__version__}, captum {captum.__version__}"
    )


def table(
    values: dict[str, dict[str, Array]], costs: dict[str, tuple[str, float]], base: str
) -> str:
    """Means, and 95% paired bootstrap intervals of the difference from ``base``; bold
    where the interval lies on the better side of 0, in italics on the worse."""
    arrows = [f"{name} {'↑' if up else '↓'}" for name, up in MEASURES.items()]
    rows = [
        f"Differences from {base}:",
        "",
        "| method | passes | " + " | ".join(arrows) + " | s a review |",
        "| --- | --- |" + " ---: |" * (len(arrows) + 1),
    ]
    for method, of in values.items():
        passes, seconds = costs[method]
        cells = [
            _cell(of[name], values[base][name] if method != base else None, up)
            for name, up in MEASURES.items()
        ]
        time = "-" if np.isnan(seconds) else f"{seconds:.2g}"
        rows.append(f"| {method} | {passes} | " + " | ".join(cells) + f" | {time} |")
    return "\n".join(rows)


def _cell(values: Array, base: Array | None, higher_is_better: bool) -> str:
    mean = f"{values.mean():.3f}"
    if base is None:
        return mean
    low, high = np.percentile(resampled_means(values - base, 0), [2.5, 97.5])
    interval = f"[{low:+.3f}, {high:+.3f}]"
    if (low > 0) if higher_is_better else (high < 0):
        interval = f"**{interval}**"
    elif (high < 0) if higher_is_better else (low > 0):
        interval = f"*{interval}*"
    return f"{mean} {interval}"


def write(title: str, text: str) -> None:
    """Put the text between the marks of this title in README.md, all at once."""
    begin, end = f"<!-- {title}: begin -->", f"<!-- {title}: end -->"
    old = README.read_text(encoding="utf-8")
    block = f"{begin}\n\n### {title}\n\n{text}\n\n{end}"
    if begin in old:
        head, _, rest = old.partition(begin)
        new = head + block + rest.partition(end)[2]
    else:
        new = f"{old.rstrip()}\n\n{block}\n"
    with tempfile.NamedTemporaryFile(
        "w", dir=README.parent, delete=False, encoding="utf-8"
    ) as file:
        file.write(new)
    os.chmod(file.name, 0o644)
    os.replace(file.name, README)
