"""Settings that every test shares."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

# Both are read when the libraries are first imported: no window, no model hub.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import numpy as np
import pytest
import torch

pytest_plugins = ["tests.must_have"]

# pytest-xdist runs one process a core; more threads in each would fight over them.
torch.set_num_threads(1)


class _TorchRandom:
    """Torch's CPU generator, as Hypothesis wants a generator to look."""

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def getstate(self) -> Any:
        return torch.get_rng_state()

    def setstate(self, state: Any) -> None:
        torch.set_rng_state(state)


# Hypothesis keeps a weak reference, hence the name.
_torch_random = _TorchRandom()
hypothesis.register_random(_torch_random)

# A first call on a loaded machine may take long, so no example has a deadline.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile(
    "reproducible", deadline=None, derandomize=True, database=None, print_blob=True
)
# What `make test-fast` asks for.
hypothesis.settings.register_profile(
    "fast", deadline=None, derandomize=True, database=None, max_examples=10
)
hypothesis.settings.load_profile("reproducible" if os.environ.get("CI") else "local")

# Files and folders whose tests are slow together, if not one by one.
SLOW = (
    "architectures",
    "attr/test_embedding_layout.py",
    "attr/test_sequence_huggingface.py",
    "attr/test_threads.py",
    "datasets/test_pronouncing_dictionary.py",
    "evaluation/test_resume.py",
    "models/test_pretrained.py",
    "models/test_seq2seq_explained.py",
    "models/test_seq2seq_learning.py",
)
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Give every test the same random numbers, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = [HERE / name for name in SLOW]
    for item in items:
        if any(item.path.is_relative_to(path) for path in slow):
            item.add_marker("slow")
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
