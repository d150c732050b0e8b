"""Where results go: files, folders, standard output; and where they cannot go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captum_attngrad.evaluation import Comparison
from captum_attngrad.evaluation import comparison as comparison_module
from tests.cli.conftest import Refused, status

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX has these files")


def explained(folder: Path, *rest: object) -> list[object]:
    return ["explain", "a good film", "--model", folder, "--methods", "random", *rest]


def compared(folder: Path, tmp_path: Path, output: object) -> list[object]:
    data = tmp_path / "data.csv"
    data.write_text("text\na good film\nbad plot\n", encoding="utf-8")
    return [
        *("compare", "--model", folder, "--data", data, "--output", output),
        *("--methods", "random", "--metrics", "comprehensiveness", "--no-progress"),
    ]


def tree(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_pages_do_not_replace_what_is_no_file(
    tiny_folder: Path, tmp_path: Path, refused: Refused
) -> None:
    os.mkfifo(tmp_path / "fifo.html")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "null.html").symlink_to("/dev/null")
    (tmp_path / "loop.html").symlink_to("loop.html")
    before = tree(tmp_path)
    for output, message in (
        ("/dev/null", "'/dev/null' is a character device; expected a file"),
        ("/dev/stderr", "'/dev/stderr' is an open file of a process"),
        (tmp_path / "fifo.html", "fifo.html' is a FIFO; expected a file"),
        (tmp_path / "folder.html", "folder.html' is a folder; expected a file"),
        (tmp_path / "null.html", "null.html' is a character device"),
        (tmp_path / "loop.html", "loop.html': Too many levels of symbolic links"),
        (tmp_path / "page.png", r"page.png' does not end in \.html, \.json or \.csv"),
        (tmp_path / "page", r"page' does not end in \.html"),
        (tmp_path / "fifo.html" / "page.html", "Not a directory"),
        (tmp_path / ("x" * 300 + ".html"), "too long"),
        ("/proc/page.html", "argument --output"),
        ("a\0b.html", r"a\\x00b.html' holds a NUL character"),
        ("", "argument --output"),
    ):
        out = refused(message, *explained(tiny_folder, "--output", output))
        assert out == ""  # known before the work
    assert tree(tmp_path) == before


def test_pages_go_where_links_lead(
    tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target.HTML"
    target.write_text("old", encoding="utf-8")
    link = tmp_path / "link.html"
    link.symlink_to(target)
    assert status(*explained(tiny_folder, "--output", link)) == 0
    assert link.is_symlink()
    assert "Explained text" in target.read_text(encoding="utf-8")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_pages_can_be_streamed(
    output: str, tiny_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status(*explained(tiny_folder, "--output", output)) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("<!DOCTYPE html>")
    assert captured.out.rstrip().endswith("</html>")
    assert captured.err.startswith("Predicted ")
    assert not Path("-").exists()


def test_reports_do_not_replace_what_is_no_file(
    tiny_folder: Path, tmp_path: Path, refused: Refused
) -> None:
    for name in ("page", "numbers", "parts"):
        (tmp_path / name).mkdir()
    (tmp_path / "page" / "index.html").mkdir()
    os.mkfifo(tmp_path / "numbers" / "comparison.npz")
    (tmp_path / "parts" / "parts").write_text("mine", encoding="utf-8")
    for output, message in (
        ("-", "'-' is not a folder; a report is several files"),
        ("/dev/stdout", "'/dev/stdout' is not a folder"),
        ("", "'' is not a folder"),
        ("/dev/null", "'/dev/null' is a file, not a folder"),
        ("a\0b", "NUL character"),
        ("/proc/report", "cannot write to '/proc'"),
        ("x" * 300, "too long"),
        (tmp_path / "page", "index.html' is a folder; expected a file"),
        (tmp_path / "numbers", "comparison.npz' is a FIFO; expected a file"),
        (tmp_path / "parts", "parts' is a file, not a folder"),
    ):
        refused(message, *compared(tiny_folder, tmp_path, output))
    assert not list(tmp_path.rglob("*.lock"))


def test_a_page_that_cannot_be_written_leaves_table_and_numbers(
    tiny_folder: Path,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    for error, message in (
        (OSError("Cannot write it: No space left"), "--output: Cannot write it: No sp"),
        (ValueError("a defect"), r"page could not be made \(ValueError: a defect\)"),
    ):

        def fails(*_: object, error: Exception = error, **__: object) -> Path:
            raise error

        monkeypatch.setattr(comparison_module.Comparison, "to_html", fails)
        out = refused(message, *compared(tiny_folder, tmp_path, output))
        assert "comprehensiveness" in out
        assert "Report:" not in out
        loaded = Comparison.load(output / "comparison.npz")
        assert loaded.table() in out
        (output / "comparison.npz").unlink()


def test_parts_that_cannot_be_written_are_one_line(
    tiny_folder: Path,
    tmp_path: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = "--output: Cannot write .*: No space left on device"
    refused(message, *compared(tiny_folder, tmp_path, tmp_path / "out"))


def test_a_damaged_part_is_made_anew_with_a_notice(
    tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = compared(tiny_folder, tmp_path, output)
    assert status(*arguments) == 0
    first = capfd.readouterr().out
    for part in sorted((output / "parts").glob("*.npz")):
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 0xFF
        part.write_bytes(content)
        assert status(*arguments) == 0
        captured = capfd.readouterr()
        assert f"warning: Parts of the comparison in {str(output)!r}" in captured.err
        assert f"computed again: {part.name} (" in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out.splitlines()[:3] == first.splitlines()[:3]
    assert status(*arguments) == 0
    assert capfd.readouterr().err == ""


def _process(arguments: list[object], **options: Any) -> subprocess.Popen[bytes]:
    program = "import sys; from captum_attngrad.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        **options,
    )


@pytest.mark.slow
def test_a_reader_who_leaves_is_no_error(tiny_folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        process = _process(
            explained(tiny_folder, "--output", "-"),
            stdout=closed,
            stderr=subprocess.PIPE,
        )
    error = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 1
    assert "Traceback" not in error
    assert "Exception ignored" not in error


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device")
def test_a_full_standard_output_is_one_line(tiny_folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = _process(explained(tiny_folder), stdout=full, stderr=subprocess.PIPE)
    error = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 1
    assert "No space left" in error
    assert error.count("\n") == 1
