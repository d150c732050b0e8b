"""Arguments of the command: help, and one clear line where they are wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from captum_attngrad import __version__
from captum_attngrad.cli import main


def status(*arguments: str) -> int:
    """What the process would exit with."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["describe"], "invalid choice: 'describe'"),
        (["demo"], "the following arguments are required: --output"),
        (["demo", "--output", "x", "--limit", "0"], "--limit: '0' is not a whole"),
        (["demo", "--output", "x", "--limit", "ten"], "--limit: 'ten' is not a whole"),
        (["demo", "--output", "x", "--seed", "-1"], "--seed: '-1' is not a whole"),
        (["demo", "--output", "x", "--lim", "3"], "unrecognized arguments: --lim 3"),
    ],
)
def test_wrong_arguments_give_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert "--help" in captured.err


def test_output_that_is_a_file_is_known_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report"
    file.write_text("mine", encoding="utf-8")
    for output in (file, file / "deeper"):
        assert status("demo", "--output", str(output)) == 2
        captured = capsys.readouterr()
        assert f"{str(file)!r} is a file, not a folder" in captured.err
        assert captured.err.count("\n") == 1
    assert file.read_text(encoding="utf-8") == "mine"


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--help") == 0
    assert "captum-attngrad demo --output report/" in capsys.readouterr().out
    assert status("demo", "--help") == 0
    text = capsys.readouterr().out
    assert "--limit 12" in text
    assert "CAPTUM_ATTNGRAD_CACHE" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("--version") == 0
    assert capsys.readouterr().out == f"captum-attngrad {__version__}\n"


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "captum_attngrad", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == f"captum-attngrad {__version__}\n"
