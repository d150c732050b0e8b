"""A Hugging Face folder, and the command as a function."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from captum_attngrad.cli import main

Refused = Callable[..., str]


def status(*arguments: object) -> int:
    """What the process would exit with."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from tests.tiny_bert import tiny_bert, tiny_tokenizer

    path: Path = tmp_path_factory.mktemp("tiny")
    model = tiny_bert()
    model.config.id2label = {0: "negative", 1: "positive"}
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that has to end with status 2 and one line that matches."""

    def run(message: str, *arguments: object) -> str:
        capfd.readouterr()
        assert status(*arguments) == 2
        captured = capfd.readouterr()
        assert captured.err.count("\n") == 1, captured.err
        assert re.search(message, captured.err), captured.err
        assert "Traceback" not in captured.err
        return captured.out

    return run
