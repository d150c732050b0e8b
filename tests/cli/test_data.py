"""Data files with something wrong in them: one line that says on which line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captum_attngrad.cli.classes import class_index
from captum_attngrad.cli.data import load_texts
from captum_attngrad.cli.errors import UsageError
from tests.cli.conftest import Refused, status

NAMES = ("negative", "positive")


def read(path: Path, content: str | bytes) -> tuple[list[str], list[int] | None]:
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    found = load_texts(str(path), "text", None, NAMES, None, 0)
    return found.texts, found.labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\ngood\nbad, indeed,1\n", "line 2 has 1 values and .* 2 columns"),
        ("text,label\nbad, indeed,1\n", "line 2 has 3 values .* comma in double quo"),
        ('text\n"two\nlines"\na,b\n', "line 4 has 2 values and the first line names 1"),
        ("text,text\na,b\n", "line 1 names the column 'text' twice"),
        (
            "text,label\ngood,0.7\n",
            "line 2: the label '0.7' is not a class; expected one",
        ),
        ("text,label\ngood,-1\n", "line 2: the label '-1' is not a class"),
        ("text,label\ngood,\n", "line 2: the label '' is not a class"),
        (f"text,label\ngood,{'9' * 5000}\n", "line 2: the label '9+ is not a class"),
        ("text\ngood\n\n \n", "line 4 has no text"),
        ("", "holds no texts"),
        ("\ufeff", "holds no texts"),
        (b"text\nna\xefve\n", "line 2 is not UTF-8 .byte 0xef.; save the file as UTF"),
        ("text\ngood\n".encode("utf-16"), "line 1 is not UTF-8"),
        ('text\n"good', "line 2 is not CSV: unexpected end of data"),
        ('text\n"good" bad\n', "line 2 is not CSV"),
    ],
)
def test_wrong_csv(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"argument --data: .*data.csv'.*{message}"):
        read(tmp_path / "data.csv", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (r'{"text": "good \ud83d film"}', r"line 1 holds \\ud83d, half of a surrogate"),
        (r'{"text": "\udc00"}', r"line 1 holds \\udc00"),
        (
            '{"text": "a"}\n\n{"text"\n',
            "line 3 is not JSON: Expecting ':' delimiter at",
        ),
        ("[" * 100_000, "line 1: maximum recursion depth"),
        ('{"text": "a", "text": "b"}', "line 1: the key 'text' stands twice"),
        ('{"text": 5}', "line 1 has no text but 5"),
        ('{"text": ["a"]}', r"line 1 has no text but \['a'\]"),
        ('{"text": null}', "line 1 has no text but None"),
        ('{"text": "a", "label": true}', "line 1: the label True is not a class"),
        ('{"text": "a", "label": 0.7}', "line 1: the label 0.7 is not a class"),
        ('{"text": "a", "label": NaN}', "line 1: the label nan is not a class"),
        ('{"text": "a", "label": null}', "line 1: the label None is not a class"),
        ('{"text": "a", "label": {}}', "line 1: the label {} is not a class"),
        ('{"text": "a", "label": %s}' % ("9" * 5000), "line 1"),
        ("3", "line 1 is not an object: '3'"),
        ('{"text": "a", "label": 0}\n{"text": "b"}', "labels for 1 of its 2 texts"),
    ],
)
def test_wrong_jsonl(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"argument --data: .*data.jsonl'.*{message}"):
        read(tmp_path / "data.jsonl", content)


def test_an_object_without_keys(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--text-column: line 1 .* it has: nothing"):
        read(tmp_path / "data.jsonl", "{}")


def test_files_as_spreadsheets_write_them(tmp_path: Path) -> None:
    texts, labels = read(
        tmp_path / "data.csv",
        '\ufefftext, label \r\n"a, ""b""",1.0\r\n\r\n'
        '"two\nlines",NEGATIVE,,\r\nc,0\r\n',
    )
    assert texts == ['a, "b"', "two\nlines", "c"]
    assert labels == [1, 0, 0]
    long = "good " * 40_000
    assert read(tmp_path / "long.csv", f"text\n{long}\n") == ([long], None)
    content = "\ufeff" + "\r\n".join(
        json.dumps({"text": text, "label": label})
        for text, label in (("a", 1.0), ("\U0001f600", "positive"))
    )
    assert read(tmp_path / "data.jsonl", content) == (["a", "\U0001f600"], [1, 1])


def test_names_of_classes_come_before_their_numbers() -> None:
    stars = ("1", "2", "3")
    assert [class_index(label, stars) for label in ("1", 3, " 2 ")] == [0, 2, 1]
    assert class_index("0", stars) == 0
    assert [class_index(label, NAMES) for label in ("Positive", "1", 1.0, "01")] == [
        1,
        1,
        1,
        1,
    ]
    assert class_index("B", ("b", "B")) == 1
    with pytest.raises(ValueError, match="'x' is the name of classes 0, 1; expected"):
        class_index("x", ("x", "x"))
    assert class_index("1", ("x", "x")) == 1
    for wrong in ("\N{SUPERSCRIPT TWO}", "-1", "2", "", "1e0", True):
        with pytest.raises(
            ValueError, match="is not a class; expected one of: negative"
        ):
            class_index(wrong, NAMES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0.csv", "cannot read 'a.x00.csv': embedded null"),
        ("x" * 300 + ".csv", "cannot read .*File name too long"),
        ("~no-one-of-this-name/x.csv", "argument --data: '~no-one"),
        ("/dev/null", "neither movie-reviews nor a .csv or .jsonl file"),
        ("folder.csv", "cannot read .*[Dd]irectory|cannot read .*denied"),
    ],
)
def test_paths_that_cannot_be_read(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.csv").mkdir()
    with pytest.raises(UsageError, match=message):
        load_texts(name, "text", None, NAMES, None, 0)


@pytest.mark.parametrize("command", ["compare", "explain", "demo"])
@pytest.mark.parametrize("seed", [2**64, 10**30, "1.5", "9" * 5000, -1])
def test_seeds_out_of_range(command: str, seed: object, refused: Refused) -> None:
    rest = {
        "compare": ("--model", "lstm", "--data", "movie-reviews", "--output", "x"),
        "explain": ("text", "--model", "lstm"),
        "demo": ("--output", "x"),
    }[command]
    message = "argument --seed: .* (is too large; expected|is not) a whole number"
    refused(message, command, *rest, "--seed", seed)


def test_the_largest_seed_works(tiny_folder: Path) -> None:
    arguments = ("explain", "a good film", "--model", tiny_folder, "--seed", 2**64 - 1)
    assert status(*arguments, "--methods", "random,lime,gradient_shap") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("good \udcff", "argument TEXT: .* holds what is not a character"),
        (" ", "argument TEXT: it is empty"),
    ],
)
def test_texts_that_are_none(
    text: str, message: str, tiny_folder: Path, refused: Refused
) -> None:
    refused(message, "explain", text, "--model", tiny_folder)


@pytest.mark.parametrize("target", ["7", "9" * 5000, "0.7", "-1"])
def test_targets_that_are_no_class(
    target: str, tiny_folder: Path, refused: Refused
) -> None:
    arguments = ("explain", "a good film", "--model", tiny_folder)
    refused(r"--target: '.* is not a class", *arguments, f"--target={target}")


def test_an_unexpected_error_is_one_line(
    tiny_folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from captum_attngrad.cli import explain

    def defect(*_: object) -> str:
        raise KeyError("a defect")

    monkeypatch.setattr(explain, "_prediction", defect)
    arguments = ("explain", "a good film", "--model", tiny_folder)
    assert status(*arguments, "--methods", "random") == 1
    error = capfd.readouterr().err
    assert "error: unexpected KeyError: 'a defect' (a defect; to see where" in error
    assert error.count("\n") == 1
    monkeypatch.setenv("CAPTUM_ATTNGRAD_TRACEBACK", "1")
    with pytest.raises(KeyError):
        status(*arguments, "--methods", "random")
