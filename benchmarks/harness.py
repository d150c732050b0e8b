"""The comparison harness against plain loops over Captum: the same work and numbers.

    python -m benchmarks.harness [--texts 30] [--model lstm] [--threads 1]

Both sides take the same model, held-out reviews, methods with the same settings, and
metrics; what the loops do is in ``benchmarks/loops.py``. Writes the seconds of each
side, their ratio, and the largest difference between the numbers to README.md. With
one thread the seconds of the processor can be trusted where other programs run.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import captum
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.__main__ import write
from benchmarks.loops import METHODS, METRICS, Loops
from captum_attngrad.cli.models import MIN_ABS_RATING, load_model
from captum_attngrad.datasets import MovieReviewSnippets
from captum_attngrad.evaluation import Method, compare
from captum_attngrad.evaluation.registry import resolve_methods
from captum_attngrad.text import TextModel

BEGIN, END = "<!-- harness: begin -->", "<!-- harness: end -->"

Seconds = dict[str, float]


class _Clock:
    """Seconds of the processor and of the wall since it was made."""

    def __init__(self) -> None:
        self._start = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        return (
            time.process_time() - self._start[0],
            time.perf_counter() - self._start[1],
        )


def _seeds(n: int) -> list[int]:
    """What compare() gives its texts with seed 0."""
    return [
        int(np.random.SeedSequence([0, place]).generate_state(1)[0])
        for place in range(n)
    ]


def loops(
    text_model: TextModel, texts: list[str], per_eval: int
) -> tuple[np.ndarray[Any, Any], Seconds]:
    """Values (methods, metrics, texts), and the processor's seconds by part."""
    values = np.zeros((len(METHODS), len(METRICS), len(texts)))
    seconds: Seconds = defaultdict(float)
    seeds = _seeds(len(texts))
    for k, text in enumerate(tqdm(texts, desc="Plain loops")):
        one = Loops(text_model, text_model.batch([text], [seeds[k]]), per_eval)
        for i, method in enumerate(METHODS):
            clock = _Clock()
            scores = one.scores(method)
            seconds[method] += clock.read()[0]
            clock = _Clock()
            for j, metric in enumerate(METRICS):
                values[i, j, k] = one.metric(metric, scores)
            seconds["all metrics"] += clock.read()[0]
    return values, seconds


def _timed(method: Method, seconds: Seconds) -> Method:
    """The method, which adds the processor's seconds that it takes."""

    def function(*args: Any) -> Tensor:
        clock = _Clock()
        scores = method.function(*args)
        seconds[method.name] += clock.read()[0]
        return scores

    return replace(method, function=function)


def report(
    options: argparse.Namespace,
    mine: tuple[float, float, Seconds],
    other: tuple[float, float, Seconds],
    differences: dict[str, float],
) -> str:
    versions = f"torch {torch.__version__}, captum {captum.__version__}"
    rows = [
        "| | loops | harness | ratio |",
        "| --- | ---: | ---: | ---: |",
        f"| processor seconds | {other[0]:.1f} | {mine[0]:.1f} "
        f"| {other[0] / mine[0]:.1f} |",
        f"| wall seconds | {other[1]:.1f} | {mine[1]:.1f} | {other[1] / mine[1]:.1f} |",
    ]
    rows += [
        f"| of the processor's: {part} | {other[2][part]:.2f} | {mine[2][part]:.2f} | "
        f"{other[2][part] / mine[2][part]:.1f} |"
        for part in mine[2]
    ]
    found = ", ".join(f"{name} {value:.1g}" for name, value in differences.items())
    return "\n\n".join(
        [
            f"{options.texts} held-out reviews, {options.model}, {options.threads} "
            f"thread(s), perturbations_per_eval={options.per_eval} in the loops, "
            f"{platform.machine()}, {versions}.",
            "\n".join(rows),
            f"Largest difference between the numbers of the two: {found}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--texts", type=int, default=30)
    parser.add_argument("--model", default="lstm")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--per-eval",
        type=int,
        default=1,
        help="perturbations_per_eval of the loops (default: Captum's own, 1)",
    )
    parser.add_argument(
        "--print-only", action="store_true", help="do not write README.md"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text_model = load_model(options.model, True).text_model
    reviews = MovieReviewSnippets(split="test", min_abs_rating=MIN_ABS_RATING)
    chosen = random.Random(0).sample(range(len(reviews)), options.texts)
    texts = [reviews[place].text for place in chosen]
    arguments: Any = {"metrics": METRICS, "show_progress": False}
    with text_model.evaluation_mode():
        compare(text_model, texts[:1], methods=METHODS, **arguments)
        loops(text_model, texts[:1], options.per_eval)  # both are warm now
        seconds: Seconds = defaultdict(float)
        methods = [_timed(method, seconds) for method in resolve_methods(METHODS)]
        clock = _Clock()
        result = compare(text_model, texts, methods=methods, **arguments)
        mine = clock.read()
        seconds["all metrics"] = mine[0] - sum(seconds.values())
        clock = _Clock()
        values, loop_seconds = loops(text_model, texts, options.per_eval)
        other = clock.read()
    if result.failures or not np.array_equal(np.isnan(values), np.isnan(result.values)):
        raise SystemExit(f"The numbers differ. {dict(result.failures)}")
    difference = np.nanmax(np.abs(values - result.values), axis=(0, 2))
    differences = dict(zip(METRICS, difference.tolist(), strict=True))
    text = report(options, (*mine, seconds), (*other, loop_seconds), differences)
    print(text)
    if max(differences.values()) > 1e-3:
        raise SystemExit("The numbers differ by more than rounding.")
    if not options.print_only:
        write(text, BEGIN, END)


if __name__ == "__main__":
    main()
