"""What the proof of layouts costs: the first explanation of a model, and later ones.

    python -m benchmarks.proof [--lengths 128 512 2048]

Each is a multiple of a plain forward and backward pass of the same model on the same
text, in the processor's time. Writes the table to README.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.__main__ import write
from benchmarks.subjects import TARGET, build_model, tokens
from captum_attngrad import AttentionGradient

BEGIN, END = "<!-- proof: begin -->", "<!-- proof: end -->"


def seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(length: int, batch: int, turns: int) -> tuple[float, float, float]:
    """Seconds of forward + backward; multiples of it: first and later explanations."""
    ids = tokens(length).repeat(batch, 1)
    plain, first, later = [], [], []
    for turn in range(turns + 1):
        # What was proved is remembered for each model: the first call is that of a new.
        model = build_model(length, "sdpa")
        method = AttentionGradient(model)

        def forward_backward(model: torch.nn.Module = model) -> None:
            model.zero_grad()
            model(ids).logits[:, TARGET].sum().backward()

        def explain(method: AttentionGradient = method) -> None:
            method.attribute(ids, TARGET)

        times = seconds(forward_backward), seconds(explain), seconds(explain)
        if turn:  # the first turn warms up
            for into, found in zip((plain, first, later), times, strict=True):
                into.append(found)
    base = statistics.median(plain)
    return base, statistics.median(first) / base, statistics.median(later) / base


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.proof",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"BERT of 6 layers, 12 heads and 384 units, fused attention, one thread, "
        f"torch {torch.__version__}; medians of {options.turns} turns.",
        "",
        "| tokens | examples | forward + backward, s | first call | later calls |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for length in options.lengths:
        for batch in options.batches:
            if length * batch > 8192:
                continue
            base, first, later = measure(length, batch, options.turns)
            lines.append(
                f"| {length} | {batch} | {base:.3f} | {first:.2f} x | {later:.2f} x |"
            )
            print(lines[-1], flush=True)
    write("\n".join(lines), BEGIN, END)


if __name__ == "__main__":
    main()
