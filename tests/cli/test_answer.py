"""``captum-attngrad answer``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from captum_attngrad.cli import main

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

SOURCES = ["The museum opens at nine. It is old.", "A ticket costs 12 coins."]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny language model of these words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    text = " ".join([*SOURCES, "Question Answer What is the price ? : 15 coin"])
    pieces = pre_tokenizers.Whitespace().pre_tokenize_str(text)
    words = list(dict.fromkeys(["<unk>", *(word for word, _ in pieces)]))
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("model")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = []
    for i, source in enumerate(SOURCES):
        path = tmp_path / f"{i}.txt"
        path.write_text(source + "\n", encoding="utf-8")
        paths.append(str(path))
    return paths


def arguments(model: str, files: list[str], *more: str) -> list[str]:
    sources = [each for path in files for each in ("--source", path)]
    question = ["--question", "What is the price ?", "--max-new-tokens", "4"]
    return ["answer", "--model", model, *question, *sources, "--no-progress", *more]


def test_scores_of_sources(
    model: str, files: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "answer.json"
    assert main(arguments(model, files, "--output", str(path))) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Answer: ")
    assert all(source in shown for source in SOURCES)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["input_tokens"] == SOURCES
    assert len(found["output_tokens"]) == 4
    for score in found["seq_attr"]:
        assert f"{score:+10.3f}" in shown


def test_sentences_of_the_sources_as_a_table(
    model: str, files: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "answer.csv"
    more = ("--by", "sentence", "--answer", "12 coins", "--output", str(path))
    assert main(arguments(model, files, *more)) == 0
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert [row[0] for row in rows] == [
        "feature",
        "The museum opens at nine.",
        "It is old.",
        SOURCES[1],
    ]


def test_a_page_of_a_contrast(
    model: str, files: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    more = ("--answer", "12 coins", "--instead-of", "15 coins", "--output", "-")
    assert main(arguments(model, files, *more)) == 0
    page = capfdbinary.readouterr().out.decode()
    assert page.startswith("<!DOCTYPE html>")
    assert "http" not in page


def test_a_whole_prompt(
    model: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["answer", "--model", model, "--prompt", files[0], "--answer", "12"]
    assert main([*given, "--no-progress"]) == 0
    assert "It is old." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--prompt", "0.txt"], "it takes the place of --question and --source"),
        (["--source", "missing.txt"], "missing.txt"),
        (["--output", "answer.pdf"], "does not end in .html, .json or .csv"),
        (["--answer", "12", "--instead-of", "12"], "do not part"),
        (["--gguf", "model.gguf"], "it has no file 'model.gguf'"),
    ],
)
def test_errors_in_one_line(
    model: str,
    files: list[str],
    change: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments(model, files, *change))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_neither_question_nor_prompt(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for given in (["--question", "What?"], []):
        with pytest.raises(SystemExit):
            main(["answer", "--model", model, *given])
        assert "expected --question and --source" in capsys.readouterr().err
