"""Time and memory against named peers: ``python -m benchmarks`` writes the tables.

Each number comes from a process of its own. What would take longer than ``--limit``
seconds for one run, or more than ``--memory`` GiB, judged by the length before, is left
out and shown as "-".
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import captum
import torch
from tqdm import tqdm

from benchmarks.subjects import SUBJECTS

LENGTHS = [128, 512, 2048, 4096, 8192, 16384]
README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

Results = dict[tuple[str, int], dict[str, float]]


def measure(what: str, name: str, length: int, options: Any) -> dict[str, float] | None:
    command = [sys.executable, "-m", "benchmarks.measure", what, name, str(length)]
    command += ["--device", options.device, "--budget", str(options.budget)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20 * options.limit
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(f"{name} at {length}: {done.stderr.splitlines()[-1:]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _expected(results: Results, key: str, name: str, length: int) -> float:
    """From the longest text measured so far; quadratic, to be on the safe side."""
    known = [n for subject, n in results if subject == name]
    if not known:
        return 0.0
    longest = max(known)
    return results[name, longest][key] * (length / longest) ** 2


def load(path: Path | None) -> Results:
    """What an earlier run has kept."""
    if path is None or not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {(name, length): found for name, length, found in kept}


def keep(results: Results, path: Path) -> None:
    kept = [[name, length, found] for (name, length), found in results.items()]
    write_whole(path, json.dumps(kept, indent=1))


def run(options: Any) -> Iterator[Results]:
    """All that is measured so far, after each subject."""
    results = load(options.keep)
    work = [(name, length) for length in options.lengths for name in options.subjects]
    for name, length in tqdm(work, desc="Measuring"):
        if (name, length) in results:
            continue
        if _expected(results, "seconds", name, length) > options.limit:
            continue
        if _expected(results, "bytes", name, length) > options.memory * 2**30:
            continue
        time = measure("time", name, length, options)
        memory = measure("memory", name, length, options) if time else None
        if time and memory:
            results[name, length] = {**time, **memory}
            if options.keep is not None:
                keep(results, options.keep)
            yield results


def _slope(results: Results, name: str, key: str) -> str:
    """Log-log slope from 2,048 tokens up: 1 is linear, 2 quadratic."""
    points = [
        (math.log(length), math.log(max(1.0, found[key])))
        for (subject, length), found in results.items()
        if subject == name and length >= 2048
    ]
    if len(points) < 2:
        return "-"
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return f"{above / sum((x - mean_x) ** 2 for x, _ in points):.2f}"


def _table(
    title: str, results: Results, lengths: list[int], cell: Any, key: str
) -> str:
    rows = [f"### {title}", ""]
    slope = f" | slope ({key})" if key else ""
    rows.append("| | " + " | ".join(f"{n:,}" for n in lengths) + slope + " |")
    rows.append("| --- |" + " ---: |" * (len(lengths) + bool(key)))
    for name, (label, _, _, _) in SUBJECTS.items():
        if not any(subject == name for subject, _ in results):
            continue
        cells = [
            cell(name, results[name, n]) if (name, n) in results else "-"
            for n in lengths
        ]
        if key:
            cells.append(_slope(results, name, key))
        rows.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _ratio(name: str, found: dict[str, float]) -> str:
    return f"{found['ratio']:.2f}" if SUBJECTS[name][3] != name else "1"


def report(results: Results, options: Any) -> str:
    lengths = sorted({length for _, length in results})
    machine = platform.machine()
    if options.device == "cuda":
        machine = torch.cuda.get_device_name()
    versions = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "captum": captum.__version__,
    }
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    peers = [
        f"- {label}: {SUBJECTS[peer][0]}"
        for name, (label, _, _, peer) in SUBJECTS.items()
        if peer != name and any(subject == name for subject, _ in results)
    ]
    parts = [
        f"Measured on {machine}, {torch.get_num_threads()} thread(s) of "
        f"{os.cpu_count()} cores; {listed}. One text; columns: its length in tokens. "
        f'"-": not measured, or one run would take more than {options.limit:.0f} s '
        f"or {options.memory:.0f} GiB.",
        _table(
            "Seconds", results, lengths, lambda _, f: f"{f['seconds']:.3g}", "seconds"
        ),
        _table("Time as a multiple of the peer's", results, lengths, _ratio, ""),
        "The peers, which took turns with the subject in the same process:\n\n"
        + "\n".join(peers),
        _table(
            "Peak memory above the loaded model, MiB",
            results,
            lengths,
            lambda _, f: f"{f['bytes'] / 2**20:.0f}",
            "bytes",
        ),
    ]
    return "\n\n".join(parts)


def write(text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put the tables between the marks in README.md, all at once."""
    old = README.read_text(encoding="utf-8")
    head, _, rest = old.partition(begin)
    _, _, tail = rest.partition(end)
    new = f"{head}{begin}\n\n{text}\n\n{end}{tail}"
    write_whole(README, new)


def write_whole(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument(
        "--subjects", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS)
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--budget", type=float, default=20.0, help="seconds for one timing"
    )
    parser.add_argument(
        "--limit", type=float, default=200.0, help="longest single run, in seconds"
    )
    parser.add_argument(
        "--memory", type=float, default=18.0, help="largest single run, in GiB"
    )
    parser.add_argument(
        "--keep", type=Path, help="file of results; what is in it is not done again"
    )
    parser.add_argument(
        "--print-only", action="store_true", help="do not write README.md"
    )
    options = parser.parse_args()
    text = ""
    for results in run(options):  # what is killed keeps what it finished
        text = report(results, options)
        if not options.print_only:
            write(text)
    print(text)


if __name__ == "__main__":
    main()
