"""What an environment is meant to have is a failed run when missing, not a skip."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.must_have import EXPECTED, OPTIONAL, VARIABLE, is_expected, must_have

ROOT = Path(__file__).parents[1]
# IPython is there wherever the tests run; the module beside the tests is not.
MODULE = """
import pytest

pytest.importorskip("torchtext.of_a_name_that_no_package_has")

def test_in_a_module_that_is_skipped() -> None:
    pass
"""
TESTS = """
import pytest

def test_lacks() -> None:
    pytest.skip("IPython cannot be imported: too old")

@pytest.mark.skipif(True, reason="IPython is not installed")
def test_lacks_by_mark() -> None:
    pass

@pytest.fixture
def package() -> None:
    pytest.importorskip("torchtext.of_a_name_that_no_package_has")

def test_lacks_what_is_not_listed(package) -> None:
    pass

def test_unexplained() -> None:
    pytest.skip("not today")

def test_needs_gpu() -> None:
    pytest.skip("needs a CUDA device")

@pytest.mark.xfail(reason="IPython is wrong")
def test_known_to_fail() -> None:
    assert False

def test_passes() -> None:
    pass
"""


def _run(
    folder: Path, listed: str | None, *arguments: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    environment.pop(VARIABLE, None)
    if listed is not None:
        environment[VARIABLE] = listed
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-rfEs"),
            *("-p", "tests.must_have", "-p", "xdist.plugin"),
            *("-c", os.devnull, "--rootdir", str(folder), *arguments),
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_some.py").write_text(TESTS)
    return tmp_path


@pytest.mark.parametrize("processes", ["0", "2"])
def test_an_unexpected_skip_fails(folder: Path, processes: str) -> None:
    (folder / "test_module.py").write_text(MODULE)
    done = _run(folder, "IPython pandas", "-n", processes)
    assert done.returncode == 1
    assert "2 failed, 1 passed, 3 skipped, 1 xfailed, 1 error in" in done.stdout
    failed = {
        line.split("::")[1].split(" ")[0]
        for line in done.stdout.splitlines()
        if line.startswith(("FAILED", "ERROR"))
    }
    assert failed == {"test_lacks", "test_lacks_by_mark", "test_unexplained"}
    assert (
        f"is meant to have what the test needs ({VARIABLE}): IPython cannot be "
        "imported: too old" in done.stdout
    )


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_module_that_skips_itself_fails(tmp_path: Path, processes: str) -> None:
    module = MODULE.replace("torchtext.", "IPython.")
    (tmp_path / "test_module.py").write_text(module)
    done = _run(tmp_path, "IPython,pandas", "-n", processes)
    assert done.returncode != 0
    assert "could not import 'IPython.of_a_name" in done.stdout
    assert "passed" not in done.stdout


@pytest.mark.parametrize("listed", [None, "", " "])
def test_without_a_list_tests_skip_as_usual(folder: Path, listed: str | None) -> None:
    done = _run(folder, listed)
    assert done.returncode == 0
    assert "1 passed, 5 skipped, 1 xfailed in" in done.stdout


def test_the_run_does_not_begin_without_what_is_listed(folder: Path) -> None:
    # No pandas: a finder that knows nothing of it stands in for its absence.
    (folder / "lost.py").write_text(
        "import sys\n"
        "class Lost:\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'pandas':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Lost)\n"
    )
    done = _run(folder, "pandas,IPython", "-p", "lost")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"is meant to have pandas ({VARIABLE})" in done.stderr
    assert "passed" not in done.stdout
    done = _run(folder, "panda,IPython")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "lists panda. It expects names of tests/must_have.py: IPython" in done.stderr


def test_reasons() -> None:
    nothing: frozenset[str] = frozenset()
    for reason in EXPECTED:
        assert is_expected(reason, OPTIONAL)
    for name in OPTIONAL:
        for reason in (f"could not import {name!r}: No module", f"{name} is missing"):
            assert is_expected(reason, OPTIONAL - {name})
            assert not is_expected(reason, frozenset({name}))
        assert not is_expected(f"my_{name} and {name}s", nothing)
    # timm is expected to fail beside a torchvision that is not the environment's.
    reason = "timm cannot be imported: operator torchvision::nms does not exist"
    assert is_expected(reason, frozenset({"transformers"}))
    assert not is_expected(reason, frozenset({"torchvision"}))
    assert not is_expected("", nothing)
    assert not is_expected("needs a CUDA device and luck", nothing)


def test_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("timm,pandas", "timm pandas", " timm, pandas\n"):
        monkeypatch.setenv(VARIABLE, text)
        assert must_have() == {"timm", "pandas"}
    monkeypatch.delenv(VARIABLE)
    assert must_have() == frozenset()


def test_it_is_on(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.has_plugin("tests.must_have")
