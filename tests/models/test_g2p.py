from __future__ import annotations

import importlib.util
import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_attngrad.datasets import PronouncingDictionary
from captum_attngrad.models import TrainedG2P, trained_g2p
from captum_attngrad.text import phoneme_error_rate, word_error_rate

SMALL: dict[str, Any] = {
    "embedding_dim": 16,
    "hidden_size": 16,
    "dropout": 0.0,
    "epochs": 6,
    "batch_size": 32,
    "learning_rate": 0.02,
    "show_progress": False,
}
CONSONANTS = {"b": "B", "d": "D", "k": "K", "m": "M", "s": "S", "t": "T"}
VOWELS = {"a": "AE0", "e": "EH1", "i": "IH0", "o": "AA2"}


def _lines() -> list[str]:
    """Made-up words, spoken as they are spelt but for "sh", one sound."""
    lines = []
    for letters in itertools.product(CONSONANTS, VOWELS, [*CONSONANTS, "sh"], VOWELS):
        sounds = [{**CONSONANTS, **VOWELS, "sh": "SH"}[letter] for letter in letters]
        lines.append(f"{''.join(letters)} {' '.join(sounds)}")
    return lines


@pytest.fixture(scope="module")
def dictionary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "made_up.dict"
    path.write_text("\n".join(_lines()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(dictionary: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedG2P:
    root = tmp_path_factory.mktemp("kept")
    return trained_g2p(root, dictionary=dictionary, **SMALL)


def _equal(a: TrainedG2P, b: TrainedG2P) -> bool:
    one, two = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


def test_it_learns_and_says_how_well(small: TrainedG2P, dictionary: Path) -> None:
    assert small.test_word_error_rate < 0.1
    assert small.pronounce(["Kosha", "moti"]) == [
        ["K", "AA", "SH", "AE"],
        ["M", "AA", "T", "IH"],
    ]
    assert small.training_seconds > 0
    assert not small.model.training
    for split in ("test", "validation"):
        entries = list(PronouncingDictionary(split, path=dictionary))
        # One word at a time.
        found = [small.pronounce([entry.word])[0] for entry in entries]
        right = [entry.pronunciations for entry in entries]
        rates = (phoneme_error_rate(found, right), word_error_rate(found, right))
        assert rates == (
            getattr(small, f"{split}_phoneme_error_rate"),
            getattr(small, f"{split}_word_error_rate"),
        )


def test_sounds_that_are_noise_cannot_be_learnt(tmp_path: Path) -> None:
    words = [line.split()[0] for line in _lines()]
    sounds = [line.split()[1:] for line in _lines()]
    shuffled = [sounds[(i * 389) % len(sounds)] for i in range(len(sounds))]
    path = tmp_path / "noise.dict"
    lines = (f"{w} {' '.join(s)}" for w, s in zip(words, shuffled, strict=True))
    path.write_text("\n".join(lines), encoding="utf-8")
    trained = trained_g2p(tmp_path, dictionary=path, **{**SMALL, "epochs": 2})
    assert trained.test_word_error_rate > 0.9
    assert trained.test_phoneme_error_rate > 0.4


def test_stress_on_request(small: TrainedG2P, dictionary: Path) -> None:
    stressed = trained_g2p(
        small.path.parent, dictionary=dictionary, stress=True, **SMALL
    )
    assert stressed.path != small.path
    assert "AE0" in stressed.phonemes.get_itos()
    assert "AE" not in stressed.phonemes.get_itos()
    assert "AE" in small.phonemes.get_itos()
    assert stressed.pronounce(["moti"]) == [["M", "AA2", "T", "IH0"]]


def test_words_to_ids(small: TrainedG2P) -> None:
    ids, mask = small.encode(["Bad", "don't", "é"])
    assert ids.shape == (3, 5)
    assert [small.letters.lookup_tokens(row.tolist()) for row in ids] == [
        ["b", "a", "d", "<pad>", "<pad>"],
        ["d", "o", "n", "'", "t"],
        ["<unk>", "<pad>", "<pad>", "<pad>", "<pad>"],
    ]
    assert mask.sum(dim=1).tolist() == [3, 5, 1]
    outputs = small.model.greedy_decode(*small.encode(["moti", "kisha"]))
    assert small.phonemes.lookup_tokens(outputs[0].tolist()) == (
        ["M", "AA", "T", "IH", "</s>"]
    )


def test_the_second_call_loads(
    small: TrainedG2P, dictionary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PronouncingDictionary, "__init__", lambda *_, **__: 1 / 0)
    again = trained_g2p(small.path.parent, dictionary=dictionary, **SMALL)
    assert _equal(again, small)
    assert again[3:] == small[3:]
    assert again.pronounce(["moti"]) == small.pronounce(["moti"])
    with pytest.raises(ZeroDivisionError):
        trained_g2p(small.path.parent, True, dictionary=dictionary, **SMALL)


def test_the_same_seed_gives_the_same_model(
    small: TrainedG2P, dictionary: Path, tmp_path: Path
) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            same = trained_g2p(tmp_path, dictionary=dictionary, **SMALL)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert _equal(same, small)
    other = trained_g2p(
        tmp_path, dictionary=dictionary, **{**SMALL, "seed": 1, "epochs": 1}
    )
    assert not _equal(other, small)


def test_another_setting_or_dictionary_is_another_model(
    small: TrainedG2P, dictionary: Path, tmp_path: Path
) -> None:
    settings = {**SMALL, "epochs": 1}
    one = trained_g2p(tmp_path, dictionary=dictionary, **settings)
    edited = tmp_path / "edited.dict"
    edited.write_text("\n".join(_lines()[1:]), encoding="utf-8")
    two = trained_g2p(tmp_path, dictionary=edited, **settings)
    assert len({small.path.name, one.path.name, two.path.name}) == 3


@pytest.mark.parametrize("damage", ["cut", "text", "other settings"])
def test_a_damaged_file_is_reported_and_replaced(
    small: TrainedG2P, dictionary: Path, tmp_path: Path, damage: str
) -> None:
    settings = {**SMALL, "epochs": 1}
    good = trained_g2p(tmp_path, dictionary=dictionary, **settings)
    kept = good.path.read_bytes()
    good.path.write_bytes(
        {
            "cut": kept[: len(kept) // 2],
            "text": b"this is no model\n",
            "other settings": small.path.read_bytes(),
        }[damage]
    )
    with pytest.warns(UserWarning, match=r"cannot be used.*trained again") as caught:
        again = trained_g2p(tmp_path, dictionary=dictionary, **settings)
    assert str(good.path) in str(caught[0].message)
    assert caught[0].filename == __file__
    assert _equal(again, good)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _equal(trained_g2p(tmp_path, dictionary=dictionary, **settings), good)


def test_progress_is_shown_on_request(
    dictionary: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for show in (False, True):
        options = {**SMALL, "epochs": 1, "show_progress": show}
        trained_g2p(tmp_path, True, dictionary=dictionary, **options)
        assert ("Training AttentionSeq2Seq" in capfd.readouterr().err) == show


def test_errors_say_what_is_expected(
    small: TrainedG2P, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        trained_g2p(tmp_path, epochs=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got -1"):
        trained_g2p(tmp_path, batch_size=-1)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        trained_g2p(tmp_path, dictionary=tmp_path / "nowhere")
    tiny = tmp_path / "tiny.dict"
    tiny.write_text("cat K AE1 T\n")
    with pytest.raises(ValueError, match=r"tiny\.dict' has no words in the"):
        trained_g2p(tmp_path, dictionary=tiny)
    for method in (small.encode, small.pronounce):
        with pytest.raises(TypeError, match=r"the string 'cat'.*\[word\]"):
            method("cat")
        for words in ([], ["cat", ""]):
            with pytest.raises(ValueError, match="at least one letter"):
                method(words)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.dict"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"captum-attngrad\[g2p\]"):
        trained_g2p(tmp_path)
