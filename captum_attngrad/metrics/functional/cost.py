r"""What an explanation costs: time, passes through the model, memory."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from captum_attngrad.capture._surroundings.threads import hooked


class Cost(NamedTuple):
    r"""
    What explaining some texts took, per text.

    Args:
        seconds (float): Wall-clock time.
        forward_passes (float): Rows that went through the model.
        backward_passes (float): Rows whose output's gradient went back.
        peak_memory (float): Bytes of tensors at the highest point, beyond what there
            was before. NaN where it was not measured.
    """

    seconds: float
    forward_passes: float
    backward_passes: float
    peak_memory: float


def _first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        value = tuple(value.values())  # Hugging Face's outputs are dictionaries
    if isinstance(value, tuple | list):
        found = (_first_tensor(item) for item in value)
        return next((tensor for tensor in found if tensor is not None), None)
    return None


@contextmanager
def _counted(model: nn.Module) -> Iterator[Counter[str]]:
    """Counts rows that go through a model, and rows whose gradients come back."""
    passes: Counter[str] = Counter()

    def after_forward(module: nn.Module, args: Any, output: Any) -> None:
        tensor = _first_tensor(output)
        if tensor is None or tensor.dim() == 0:
            return
        rows = tensor.shape[0]
        passes["forward"] += rows
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: passes.update(backward=rows))

    with hooked(model.register_forward_hook, after_forward):
        yield passes


def _synchronize(device: torch.device) -> None:
    # Kernels still run after the call that started them has returned.
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_on_cuda(run: Callable[[], Any], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return float(torch.cuda.max_memory_allocated(device) - before)


def _peak_on_cpu(run: Callable[[], Any]) -> float:
    """From the allocations that the profiler records, in the order of their time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted(
        (float(event["ts"]), int(event["args"]["Bytes"]))
        for event in events
        if event.get("name") == "[memory]"
    )
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return float(peak)


def peak_memory(run: Callable[[], Any], device: torch.device) -> float:
    r"""
    Bytes of tensors at the highest point of a call, beyond what there was before.

    Args:
        run (Callable): Called once, without arguments.
        device (torch.device): Where the tensors are. On the CPU PyTorch's profiler
            records every allocation, which makes the call slower.

    Returns:
        *float*: Bytes; NaN on devices other than CPU and CUDA.
    """
    if device.type == "cuda":
        return _peak_on_cuda(run, device)
    if device.type == "cpu":
        return _peak_on_cpu(run)
    return float("nan")


def measure_cost(
    run: Callable[[], Any],
    model: nn.Module,
    n_examples: int,
    memory: bool = True,
) -> Cost:
    r"""
    Seconds, forward and backward passes and peak memory of a call, per example.

    Args:
        run (Callable): Explains ``n_examples`` texts; called without arguments, once to
            take the time and count the passes, and once more for the memory.
        model (nn.Module): The model whose passes are counted: a pass is one row of a
            batch that goes through the model, so that batches of any size compare.
        n_examples (int): Number of texts.
        memory (bool): Whether peak memory is measured.
            Default: True

    Returns:
        *Cost*: Per example, except peak memory: that of the whole call divided by the
        number of examples.

    Raises:
        ValueError: If ``n_examples`` is not positive.

    Examples::

        >>> measure_cost(lambda: method.attribute(input_ids, target=1), model, 32)
        Cost(seconds=0.0031, forward_passes=1.0, backward_passes=1.0, ...)
    """
    if n_examples < 1:
        raise ValueError(f"n_examples is {n_examples}; expected 1 or more.")
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with _counted(model) as passes:
        _synchronize(device)
        start = perf_counter()
        run()
        _synchronize(device)
        seconds = perf_counter() - start
    return Cost(
        seconds=seconds / n_examples,
        forward_passes=passes["forward"] / n_examples,
        backward_passes=passes["backward"] / n_examples,
        peak_memory=peak_memory(run, device) / n_examples if memory else float("nan"),
    )
