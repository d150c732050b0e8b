"""compare, explain and layers, on a Hugging Face folder made here."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from captum_attngrad.cli import main
from captum_attngrad.cli.explanations import marked
from captum_attngrad.evaluation import Comparison
from captum_attngrad.verification.verification import TOLERANCES
from captum_attngrad.visualization.words import row_of

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
        ("text,label\ngood,7\n", [], "line 2: the label '7' is not a class"),
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
    assert "Explained: positive" in html
    assert "<dt>attention_<wbr>gradient</dt>" in html
    assert "failed: RuntimeError: DeepLift" in html
    assert "<b>film</b>" not in html
    for extra, message in (
        (
            ["--target", "x"],
            "--target: 'x' is not a class; expected one of: negative, po",
        ),
        (["--output", tmp_path], "is a folder; expected a file"),
    ):
        assert status(*arguments, *extra) == 2
        assert message in capfd.readouterr().err
    assert status("explain", " ", "--model", folder) == 2
    assert "argument TEXT: it is empty" in capfd.readouterr().err


def test_signs_and_colors() -> None:
    row = row_of("method", list("abcde"), [1.0, 0.4, 0.2, 0.05, -0.7])
    assert marked(row, color=False) == "+++a ++b +c d ---e"
    colored = marked(row_of("method", list("ae"), [1.0, -0.5]), color=True)
    assert colored == "\x1b[32m\x1b[1m+++a\x1b[0m \x1b[31m--e\x1b[0m"
    assert marked(row_of("method", list("ab"), [0.0, 0.0]), color=True) == "a b"


def explain_arguments(folder: Path, *rest: object) -> list[object]:
    methods = ["--methods", "attention_gradient,leave_one_out"]
    return ["explain", "--model", folder, *methods, *rest]


def test_explain_takes_texts_files_and_lines_of_stdin(
    folder: Path,
    csv_file: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out.json"

    def texts(*arguments: object) -> list[str]:
        given = explain_arguments(folder, *arguments, "--output", output)
        assert status(*given) == 0, capfd.readouterr().err
        capfd.readouterr()
        return [one["text"] for one in json.loads(output.read_text("utf-8"))]

    assert texts("a good film", "bad film") == ["a good film", "bad film"]
    lines = tmp_path / "lines.txt"
    lines.write_text("a good film\n\n  bad film \n", encoding="utf-8")
    assert texts("--file", lines) == ["a good film", "bad film"]
    assert texts("--file", csv_file, "--text-column", "review") == list(TEXTS)
    monkeypatch.setattr("sys.stdin", io.StringIO("bad film\n\na fine plot\n"))
    assert texts("a good film", "-") == ["a good film", "bad film", "a fine plot"]


def test_the_output_has_the_format_of_its_ending(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "the unwatchable plot"
    path = tmp_path / "out.json"
    assert status(*explain_arguments(folder, text, "--output", path)) == 0
    (found,) = json.loads(path.read_text("utf-8"))
    assert found["words"] == ["[CLS]", "the", "unwatchable", "plot", "[SEP]"]
    assert found["explained"] in ("negative", "positive")
    assert list(found["scores"]) == ["attention_gradient", "leave_one_out"]
    assert [len(scores) for scores in found["scores"].values()] == [5, 5]
    assert found["scores"]["leave_one_out"][0] == 0
    capfd.readouterr()
    streamed = explain_arguments(folder, text, "--output", "-", "--format", "csv")
    assert status(*streamed, "--word-pieces") == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert len(rows) == 2 * 7
    assert [row["word"] for row in rows[:7]][2:5] == ["un", "##watch", "##able"]
    # The scores of pieces add up to that of their word.
    of_pieces = [float(row["score"]) for row in rows[2:5]]
    word = found["scores"]["attention_gradient"][2]
    assert sum(of_pieces) == pytest.approx(word)
    assert status(*explain_arguments(folder, text, "--format", "csv")) == 2
    assert "argument --format: it needs --output" in capfd.readouterr().err


def test_what_holds_no_texts_is_named(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", encoding="utf-8")
    for arguments, message in (
        ([], "there is no text to explain; give TEXT, - with lines"),
        (["--file", empty], "argument --file: .* holds no texts"),
        (["--file", tmp_path / "missing"], "argument --file: cannot read"),
        (["--file", "texts.json"], "'texts.json' is not a .txt, .csv or .jsonl file"),
    ):
        assert status(*explain_arguments(folder, *arguments)) == 2
        assert re.search(message, capfd.readouterr().err)


def test_many_texts_have_the_scores_of_each_alone(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"
    scores = []
    for texts in (TEXTS, TEXTS[2:3]):
        assert status(*explain_arguments(folder, *texts, "--output", path)) == 0
        found = {one["text"]: one for one in json.loads(path.read_text("utf-8"))}
        scores.append(found[TEXTS[2]]["scores"]["attention_gradient"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-4, abs=1e-9)


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
