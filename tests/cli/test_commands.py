"""compare, explain and layers, on a Hugging Face folder made here."""

import json
import re
from pathlib import Path

import pytest

from captum_attngrad.cli import main
from captum_attngrad.cli.explain import marked_tokens
from captum_attngrad.evaluation import Comparison
from captum_attngrad.verification.verification import TOLERANCES

TEXTS = ("a good film", "the unwatchable plot", "bad film", "a fine plot")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from tests.tiny_bert import tiny_bert, tiny_tokenizer

    path: Path = tmp_path_factory.mktemp("tiny-bert")
    model = tiny_bert()
    model.config.id2label = {0: "negative", 1: "positive"}
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    rows = "".join(
        f'"{t}",{i % 2},{["neg", "pos"][i % 2]}\n' for i, t in enumerate(TEXTS)
    )
    path.write_text("﻿review,stars,name\n" + rows, encoding="utf-8")
    return path


def status(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def compare_arguments(folder: Path, data: Path, output: Path) -> list[object]:
    return [
        *("compare", "--model", folder, "--data", data, "--output", output),
        *("--text-column", "review", "--label-column", "stars"),
        *("--methods", "attention_gradient,leave_one_out,random"),
        *("--metrics", "comprehensiveness,consistency", "--no-progress"),
    ]


def test_compare_writes_a_report_and_goes_on(
    folder: Path, csv_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("IPython")
    output = tmp_path / "new" / "report"
    arguments = compare_arguments(folder, csv_file, output)
    assert status(*arguments) == 0
    first = capfd.readouterr()
    assert first.err == ""
    assert "comprehensiveness ↑" in first.out
    assert "davies_bouldin ↓" in first.out
    assert (output / "index.html").is_file()
    result = Comparison.load(output / "comparison.npz")
    assert [text.label for text in result.texts] == [0, 1, 0, 1]
    assert result.texts[1].tokens[2:5] == ("un", "##watch", "##able")
    # Nothing is run again, so that even the seconds are the same.
    assert status(*arguments) == 0
    assert capfd.readouterr().out == first.out
    assert status(*arguments, "--seed", "1") == 2
    message = capfd.readouterr().err
    assert "with other arguments: seed 0 there, 1 now" in message
    assert message.count("\n") == 1


def test_jsonl_with_names_of_classes(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("IPython")
    data = tmp_path / "reviews.jsonl"
    rows = [{"text": text, "label": "Positive"} for text in TEXTS]
    data.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    output = tmp_path / "out"
    arguments = ["--methods", "random", "--metrics", "cohesion", "--no-progress"]
    common = ["compare", "--model", folder, "--data", data, "--output", output]
    assert status(*common, *arguments, "--limit", 3) == 0
    capfd.readouterr()
    result = Comparison.load(output / "comparison.npz")
    assert [text.label for text in result.texts] == [1, 1, 1]
    assert "3 of 4 drawn at random" in result.settings["data"]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("text\n", [], "holds no texts"),
        ("text\n ,\n", [], "line 2 has no text"),
        ("body\ngood\n", [], "line 2 of .* has no 'text'; it has: body"),
        ("text\ngood\n", ["--label-column", "y"], "has no 'y'; it has: text"),
        ("text,label\ngood,7\n", [], "line 2: the label '7' is no class"),
        ("text\ngood\n", ["--limit", "2"], "--limit: 2 is more than the 1 texts"),
        ("text\ngood\n", ["--methods", "shap"], "no method named 'shap'"),
        ("text\ngood\n", ["--metrics", "auc"], "no metric named 'auc'"),
        ('text\n"good', [], "unexpected end of data"),
    ],
)
def test_wrong_data_gives_one_line_and_status_2(
    content: str,
    arguments: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("IPython")
    data = tmp_path / "data.csv"
    data.write_text(content, encoding="utf-8")
    output = tmp_path / "out"
    command = ["compare", "--model", folder, "--data", data, "--output", output]
    assert status(*command, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert re.search(message, captured.err), captured.err
    assert not output.exists()


def test_wrong_files_and_models_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("IPython")
    rest = ["--output", tmp_path / "out"]
    for data, message in (
        (tmp_path / "missing.csv", "cannot read"),
        (tmp_path / "data.txt", "neither movie-reviews nor a .csv or .jsonl file"),
    ):
        assert status("compare", "--model", folder, "--data", data, *rest) == 2
        assert message in capsys.readouterr().err
    for model, message in (
        ("bert", "'bert' is neither lstm nor minilm, and there is no such folder"),
        (tmp_path, "has no config.json"),
    ):
        assert status("explain", "good", "--model", model) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_explain(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("IPython")
    page = tmp_path / "page.html"
    arguments = ["explain", "a good <b>film</b>", "--model", folder]
    methods = ["--methods", "attention_gradient,deep_lift,random"]
    assert status(*arguments, *methods, "--output", page, "--target", "positive") == 0
    out = capfd.readouterr().out
    assert "Explained: positive" in out
    assert "\x1b[" not in out  # not a terminal
    row = next(line for line in out.splitlines() if line.startswith("attention_grad"))
    assert "+" in row or "-" in row
    assert "deep_lift           failed: RuntimeError: DeepLift's rules" in out
    html = page.read_text(encoding="utf-8")
    assert "positive by attention_gradient" in html
    assert "<b>film</b>" not in html
    for extra, message in (
        (["--target", "x"], "--target: 'x' is no class; expected one of: negative, po"),
        (["--output", tmp_path], "is a folder; expected a file"),
    ):
        assert status(*arguments, *extra) == 2
        assert message in capfd.readouterr().err
    assert status("explain", " ", "--model", folder) == 2
    assert "argument TEXT: it is empty" in capfd.readouterr().err


def test_signs_and_colours() -> None:
    scores = [1.0, 0.4, 0.2, 0.05, -0.7]
    assert marked_tokens("abcde", scores, colour=False) == "+++a ++b +c d ---e"
    coloured = marked_tokens("ae", [1.0, -0.5], colour=True)
    assert coloured == "\x1b[32m\x1b[1m+++a\x1b[0m \x1b[31m--e\x1b[0m"
    assert marked_tokens("ab", [0.0, 0.0], colour=True) == "a b"


def test_verify(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert status("verify", "--model", folder) == 0
    out = capfd.readouterr().out
    assert "proof run" in out
    assert "exact (finite differences in float64, tolerance 0.0001)" in out
    assert status("verify", "--model", folder, "--text", "a good film") == 0


def test_what_is_not_exact_gives_status_1(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TOLERANCES, "float64", 0.0)
    assert status("verify", "--model", folder) == 1
    assert "not verified" in capfd.readouterr().out


def test_layers(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert status("layers", "--model", folder, "--text", "a good film") == 0
    out = capfd.readouterr().out
    assert "bert.encoder.layer.0.attention.self" in out
    assert "5 x 5" in out


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("compare", "explain", "layers", "verify", "demo"):
        assert status(command, "--help") == 0
        text = capsys.readouterr().out
        assert f"examples:\n  captum-attngrad {command}" in text
