from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_attngrad.datasets import MovieReview, MovieReviewSnippets
from captum_attngrad.models import TrainedLSTM, trained_lstm
from captum_attngrad.text import pad_batch
from tests.datasets.made_up import FILE_NAME, reviews_file

SMALL: dict[str, Any] = {
    "min_abs_rating": 1.0,
    "embedding_dim": 8,
    "hidden_size": 4,
    "dropout": 0.0,
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 0.02,
    "show_progress": False,
    "download": False,
}
NOUNS = ("plot", "cast", "pace", "score", "ending")


def _text(i: int) -> str:
    # One word in the middle decides, and a rare word comes along.
    word = "superb" if i % 2 else "dreadful"
    return f"the {NOUNS[i % 5]} was {word} and the film long rare{i}"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 10,605 sentences about 600 have a rating that passes the filter."""

    def rating(i: int) -> float:
        return 0.1 if i > 600 else (2.0 if i % 2 else -2.0)

    root = tmp_path_factory.mktemp("data")
    (root / FILE_NAME).write_bytes(reviews_file(rating, _text))
    return root


@pytest.fixture(scope="module")
def small(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedLSTM:
    return trained_lstm(tmp_path_factory.mktemp("kept"), data_root=data_root, **SMALL)


def _state(trained: TrainedLSTM) -> dict[str, torch.Tensor]:
    return trained.model.state_dict()


def _equal(a: TrainedLSTM, b: TrainedLSTM) -> bool:
    one, two = _state(a), _state(b)
    return all(torch.equal(one[name], two[name]) for name in one)


def test_it_learns_and_says_how_well(small: TrainedLSTM, data_root: Path) -> None:
    assert small.test_accuracy == small.validation_accuracy == 1.0
    assert 1 <= small.best_epoch <= SMALL["epochs"]
    assert small.training_seconds > 0
    assert not small.model.training
    assert all(parameter.requires_grad for parameter in small.model.parameters())
    # The accuracy, counted here one sentence at a time.
    test = MovieReviewSnippets(data_root, "test", min_abs_rating=1.0)
    right = [_predict(small, review.text) == review.label for review in test]
    assert sum(right) / len(right) == small.test_accuracy
    # And it has learnt the word, not the sentences.
    assert _predict(small, "a superb thing") == 1
    assert _predict(small, "a dreadful thing") == 0


def _predict(trained: TrainedLSTM, text: str) -> int:
    ids, mask = pad_batch([trained.vocab(trained.tokenizer(text))], 0)
    return int(trained.model(ids, mask).argmax())


def test_labels_that_are_noise_cannot_be_learnt(tmp_path: Path) -> None:
    def rating(i: int) -> float:
        return 0.1 if i > 600 else (2.0 if (i * 2654435761) % 2**32 > 2**31 else -2.0)

    (tmp_path / FILE_NAME).write_bytes(reviews_file(rating, _text))
    trained = trained_lstm(tmp_path, data_root=tmp_path, **SMALL)
    assert trained.test_accuracy < 0.75


def test_the_vocabulary_is_that_of_the_training_split(
    small: TrainedLSTM, data_root: Path
) -> None:
    assert small.vocab.lookup_tokens([0, 1]) == ["<pad>", "<unk>"]
    assert small.vocab["never seen"] == 1
    assert small.model.padding_idx == small.vocab["<pad>"]
    assert not small.model.embedding.weight[0].any()
    all_words = trained_lstm(
        small.path.parent, data_root=data_root, **{**SMALL, "min_freq": 1, "epochs": 1}
    ).vocab
    train = MovieReviewSnippets(data_root, "train", min_abs_rating=1.0)
    expected = {word for review in train for word in small.tokenizer(review.text)}
    assert set(all_words.get_itos()) == expected | {"<pad>", "<unk>"}
    assert not any(word.startswith("rare") for word in small.vocab.get_itos())


def test_the_second_call_loads(small: TrainedLSTM, tmp_path: Path) -> None:
    # There is no data in tmp_path, so it cannot have trained.
    again = trained_lstm(small.path.parent, data_root=tmp_path, **SMALL)
    assert _equal(again, small)
    assert again.vocab.get_itos() == small.vocab.get_itos()
    assert again.vocab["never seen"] == 1
    assert again[3:] == small[3:]
    ids = torch.tensor([[2, 3, 4]])
    assert torch.equal(again.model(ids), small.model(ids))


def test_the_same_seed_gives_the_same_model(
    small: TrainedLSTM, data_root: Path, tmp_path: Path
) -> None:
    # Whatever the caller has set.
    torch.manual_seed(123)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            same = trained_lstm(tmp_path, data_root=data_root, **SMALL)
            loaded = trained_lstm(tmp_path, data_root=data_root, **SMALL)
            assert torch.is_inference_mode_enabled()
        assert torch.get_num_threads() == threads + 1
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
    for trained in (same, loaded):
        assert _equal(trained, small)
        for parameter in trained.model.parameters():
            assert parameter.dtype == torch.float32
            assert not parameter.is_inference()
    other = trained_lstm(tmp_path, data_root=data_root, **{**SMALL, "seed": 1})
    assert not _equal(other, small)


def test_the_callers_random_state_is_left_alone(
    small: TrainedLSTM, data_root: Path
) -> None:
    before = torch.get_rng_state()
    for retrain in (False, True):
        trained_lstm(small.path.parent, retrain, data_root=data_root, **SMALL)
        assert torch.equal(torch.get_rng_state(), before)


def test_a_changed_setting_trains_another_model(
    small: TrainedLSTM, data_root: Path
) -> None:
    root = small.path.parent
    changed = trained_lstm(root, data_root=data_root, **{**SMALL, "hidden_size": 5})
    assert changed.path != small.path
    assert changed.model.lstm.hidden_size == 5
    assert small.path.exists()


def test_retrain_replaces_the_file(small: TrainedLSTM, data_root: Path) -> None:
    before = small.path.stat().st_mtime_ns
    again = trained_lstm(small.path.parent, True, data_root=data_root, **SMALL)
    assert again.path == small.path
    assert again.path.stat().st_mtime_ns > before
    assert _equal(again, small)


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "text", "flipped", "one byte", "other content"]
)
def test_a_damaged_file_is_reported_and_replaced(
    small: TrainedLSTM, data_root: Path, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / small.path.name
    good = small.path.read_bytes()
    if damage == "other content":
        torch.save({"weights": torch.ones(2)}, path)
    else:
        path.write_bytes(
            {
                "cut": good[: len(good) // 2],
                "empty": b"",
                "text": b"this is no model\n",
                "one byte": good[:-1000] + bytes([good[-1000] ^ 1]) + good[-999:],
                "flipped": good[:200] + bytes(255 - b for b in good[200:]),
            }[damage]
        )
    with pytest.warns(UserWarning, match=r"cannot be used.*trained again") as caught:
        again = trained_lstm(tmp_path, data_root=data_root, **SMALL)
    assert str(path) in str(caught[0].message)
    assert caught[0].filename == __file__
    assert _equal(again, small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _equal(trained_lstm(tmp_path, data_root=data_root, **SMALL), small)


def test_a_file_of_other_settings_is_not_taken(
    small: TrainedLSTM, data_root: Path, tmp_path: Path
) -> None:
    settings = {**SMALL, "seed": 5, "epochs": 1}
    path = trained_lstm(tmp_path, data_root=data_root, **settings).path
    path.write_bytes(small.path.read_bytes())
    with pytest.warns(UserWarning, match="made with other settings"):
        again = trained_lstm(tmp_path, data_root=data_root, **settings)
    assert not _equal(again, small)


def test_the_file_holds_nothing_but_data(small: TrainedLSTM) -> None:
    content = torch.load(small.path, weights_only=True)
    assert content["settings"]["hidden_size"] == 4
    assert list(small.path.parent.glob(".*")) == []


def test_the_cache_folder_is_the_default(small: TrainedLSTM, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / small.path.name).write_bytes(small.path.read_bytes())
    options = ", ".join(f"{name}={value!r}" for name, value in SMALL.items())
    program = (
        "from captum_attngrad.models import trained_lstm\n"
        f"print(trained_lstm({options}).path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "CAPTUM_ATTNGRAD_CACHE": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "models" / small.path.name)


def test_progress_is_shown_on_request(
    data_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for show in (False, True):
        options = {**SMALL, "epochs": 1, "show_progress": show}
        trained_lstm(tmp_path, True, data_root=data_root, **options)
        shown = capfd.readouterr().err
        assert ("Training AttentionLSTMClassifier" in shown) == show


def test_errors_say_what_is_expected(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        trained_lstm(tmp_path, epochs=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got -1"):
        trained_lstm(tmp_path, batch_size=-1)
    with pytest.raises(ValueError, match=r"min_abs_rating=3.5 leaves no sentences"):
        trained_lstm(tmp_path, data_root=data_root, **{**SMALL, "min_abs_rating": 3.5})
    with pytest.raises(FileNotFoundError, match="download=False"):
        trained_lstm(tmp_path, data_root=tmp_path, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.network
def test_the_real_model_reaches_80_percent() -> None:
    trained = trained_lstm()
    assert trained.test_accuracy >= 0.80
    test = list(MovieReviewSnippets(split="test", min_abs_rating=1.0))
    right = sum(_is_right(trained, review) for review in test)
    assert right / len(test) == pytest.approx(trained.test_accuracy, abs=1e-9)
    assert _predict(trained, "A warm, funny and deeply moving film.") == 1
    assert _predict(trained, "A dull, pointless and badly acted mess.") == 0


def _is_right(trained: TrainedLSTM, review: MovieReview) -> bool:
    return _predict(trained, review.text) == review.label
