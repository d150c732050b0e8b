"""Measure one subject at one length, in this process; prints one line of JSON.

Time: the subject and its peer take turns, so that whatever else the machine does
falls on both; the ratio is the median over the turns. With one thread on the CPU it is
the processor's time, in which waiting for other programs does not count. Memory: the
highest resident size during one run, above what the process held before (Linux), or the
allocator's peak on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch

from benchmarks.subjects import SUBJECTS, Subject, build_model, tokens

MOST_TURNS = 30


def _build(name: str, length: int, device: str) -> Subject:
    _, attention, build, _ = SUBJECTS[name]
    return build(build_model(length, attention).to(device), tokens(length).to(device))


def _seconds(run: Subject, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def measure_time(
    name: str, length: int, device: str, budget: float
) -> dict[str, float]:
    for warm_up in (name, SUBJECTS[name][3]):  # on a short text: a long one takes long
        _build(warm_up, min(length, 128), device)()
    run = _build(name, length, device)
    peer = _build(SUBJECTS[name][3], length, device)
    pairs: list[tuple[float, float]] = []
    while len(pairs) < MOST_TURNS and sum(map(sum, pairs)) < budget:
        pairs.append((_seconds(run, device), _seconds(peer, device)))
    return {
        "seconds": statistics.median(mine for mine, _ in pairs),
        "peer_seconds": statistics.median(other for _, other in pairs),
        "ratio": statistics.median(mine / other for mine, other in pairs),
        "turns": len(pairs),
    }


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure_memory(name: str, length: int, device: str) -> dict[str, float]:
    run = _build(name, length, device)
    small = _build(name, 16, device)
    small()  # loads what is loaded once
    del small
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return {"bytes": torch.cuda.max_memory_allocated() - before}
    before = _resident()
    # Linux starts the high-water mark anew when told so.
    Path("/proc/self/clear_refs").write_text("5")
    run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    status = Path("/proc/self/status").read_text()
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            peak = int(line.split()[1]) * 1024
    return {"bytes": max(0, peak - before)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["time", "memory"])
    parser.add_argument("subject", choices=list(SUBJECTS))
    parser.add_argument("length", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--budget", type=float, default=10.0)
    options = parser.parse_args()
    if options.what == "time":
        found = measure_time(
            options.subject, options.length, options.device, options.budget
        )
    else:
        found = measure_memory(options.subject, options.length, options.device)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
