"""Folders of models with broken files: one line that says what is broken."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Refused, status

pytest.importorskip("transformers")
pytest.importorskip("safetensors")

Change = Callable[[Path], object]
WEIGHTS = "model.safetensors"


@pytest.fixture
def broken(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "broken"))


def explained(folder: Path) -> list[object]:
    return ["explain", "a good film", "--model", folder, "--methods", "random"]


class _Runs:
    """A pickle that would run code."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (self._mark,))  # type: ignore[return-value]


def cut(n: int | None, name: str = WEIGHTS) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:n])

    return change


def written(name: str, content: bytes) -> Change:
    def change(folder: Path) -> None:
        if name.endswith(".bin"):
            (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(content)

    return change


def weights(edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        state = edit(load_file(folder / WEIGHTS))
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def settings(name: str = "config.json", **values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text(encoding="utf-8")) | values
        path.write_text(json.dumps(content), encoding="utf-8")

    return change


def _cut_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {k: v for k, v in vocabulary.items() if v < 5}
    path.write_text(json.dumps(content), encoding="utf-8")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def _smaller_embedding(folder: Path) -> None:
    from tests.tiny_bert import tiny_bert

    model = tiny_bert()
    model.resize_token_embeddings(9)
    model.save_pretrained(folder)


def _without_head(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in state.items() if "classifier" not in k}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut(-50), "its weights cannot be read: damaged.*SafetensorError"),
        (cut(5), "its weights cannot be read: damaged"),
        (cut(0), "its weights cannot be read: damaged"),
        (written("pytorch_model.bin", b"abc"), "its weights (cannot be|are a damaged)"),
        (written("pytorch_model.bin", b""), "its weights (cannot be|are a damaged)"),
        (lambda f: (f / WEIGHTS).unlink(), "its weights cannot be read.*no file named"),
        (weights(_without_head), "its weights lack classifier.bias, classifier.weight"),
        (
            weights(lambda s: {**s, "classifier.weight": torch.zeros(3, 16)}),
            "its weights have other sizes than config.json says",
        ),
        (
            weights(lambda s: {k: v * torch.nan for k, v in s.items()}),
            r"gives the probabilities \[nan, nan\]; its weights are damaged",
        ),
        (written("config.json", b"[]"), "config.json holds a list; expected an object"),
        (written("config.json", b"3"), "config.json holds a int"),
        (written("config.json", b""), "config.json cannot be read"),
        (written("config.json", b'{"a":'), "config.json cannot be read"),
        (written("config.json", b"\xff"), "config.json cannot be read"),
        (written("config.json", b"[" * 100_000), "config.json cannot be read"),
        (settings(architectures=[5]), r"names the architectures \[5\]; expected a lis"),
        (settings(architectures=["BertModel"]), "it is a BertModel, not a sequence"),
        (settings(model_type="none"), "cannot be read"),
        (settings(hidden_size="a"), "cannot be read"),
        (settings(id2label=[1, 2]), "cannot be read"),
        (settings(id2label={"5": "x", "6": "y"}), "id2label has no name for class 0"),
        (settings(problem_type="regression"), "is a regression model"),
        (settings(problem_type="ranking"), "has the problem_type 'ranking'"),
        (_no_tokenizer, "its tokenizer"),
        (lambda f: (f / "tokenizer.json").unlink(), "its tokenizer"),
        (written("tokenizer.json", b""), "its tokenizer cannot be read: damaged"),
        (written("tokenizer.json", b"{}"), "its tokenizer cannot be read: damaged"),
        (written("tokenizer.json", b"[]"), "its tokenizer cannot be read: damaged"),
        (cut(300, "tokenizer.json"), "its tokenizer cannot be read: damaged"),
        (written("tokenizer_config.json", b"[]"), "its tokenizer cannot be read"),
        (_cut_vocabulary, "knows no tokens but its special ones"),
        (_smaller_embedding, "ids up to 14, and the embedding .* has 9 rows"),
    ],
)
def test_what_is_broken_is_said_in_one_line(
    change: Change, message: str, broken: Path, refused: Refused
) -> None:
    change(broken)
    out = refused(message, *explained(broken))
    assert out == ""


def test_pickles_are_not_run(broken: Path, tmp_path: Path, refused: Refused) -> None:
    mark = tmp_path / "was run"
    written("pytorch_model.bin", pickle.dumps(_Runs(mark)))(broken)
    refused("its weights (are a damaged file, or a pickle|cannot)", *explained(broken))
    assert not mark.exists()


def test_weights_of_torch_are_read(
    broken: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.tiny_bert import tiny_bert

    assert status(*explained(broken)) == 0
    before = capfd.readouterr().out
    buffer = io.BytesIO()
    torch.save(tiny_bert().state_dict(), buffer)
    written("pytorch_model.bin", buffer.getvalue())(broken)
    assert status(*explained(broken)) == 0
    assert capfd.readouterr().out == before


def test_weights_that_are_not_used_are_named(
    broken: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings(num_hidden_layers=1)(broken)
    assert status(*explained(broken)) == 0
    error = capfd.readouterr().err
    assert "warning: the model of config.json does not use 16 of the weights" in error
    assert error.count("\n") == 1


def test_labels_of_a_multi_label_model(
    broken: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def bias(state: dict[str, Any]) -> dict[str, Any]:
        head = {
            "classifier.weight": state["classifier.weight"] * 0,
            "classifier.bias": torch.tensor([2.0, 3.0]),
        }
        return {**state, **head}

    settings(problem_type="multi_label_classification")(broken)
    weights(bias)(broken)
    assert status(*explained(broken)) == 0
    out = capfd.readouterr().out
    # sigmoid(2) and sigmoid(3); a softmax would say 0.27 and 0.73.
    assert "Predicted negative (0.88), positive (0.95)." in out
    assert "Explained: positive (0.95)." in out


@pytest.mark.parametrize(
    "name", ["a\0b", "x" * 300, "\udcff", "/dev/null", "~no-one/x"]
)
def test_names_of_no_folder(name: str, refused: Refused) -> None:
    refused("argument --model: ", "explain", "good", "--model", name)


def test_a_model_that_fails_is_named(
    broken: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForSequenceClassification

    def fails(*_: object, **__: object) -> None:
        raise KeyError("something")

    monkeypatch.setattr(BertForSequenceClassification, "forward", fails)
    for command in (explained(broken), ["layers", "--model", broken]):
        refused(r"cannot be run: KeyError: 'something'", *command)


def test_texts_of_which_no_word_is_known(
    tiny_folder: Path, tmp_path: Path, refused: Refused
) -> None:
    message = "knows none of the words, so that there is nothing to explain"
    refused(message, "explain", "Zebra zoo", "--model", tiny_folder)
    data = tmp_path / "data.csv"
    data.write_text("text\nzebra\nzoo\n", encoding="utf-8")
    output = tmp_path / "out"
    compare = ["compare", "--model", tiny_folder, "--data", data, "--output", output]
    refused(message, *compare)
    assert not output.exists()
