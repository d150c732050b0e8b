"""Kept models: a checksum, and what happens when it does not match."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_attngrad._checksum import DamagedError
from captum_attngrad.models._kept import load_or_train, pack, unpack

SETTINGS = {"seed": 0, "size": 3}


def packed() -> bytes:
    return pack(1, SETTINGS, state_dict={"weight": torch.arange(6.0)}, accuracy=0.9)


def load(kept: bytes) -> dict[str, Any]:
    return unpack(kept, 1, SETTINGS)


def test_every_changed_byte_is_noticed() -> None:
    kept = packed()
    assert load(kept)["accuracy"] == 0.9
    for place in range(0, len(kept), 7):
        damaged = bytearray(kept)
        damaged[place] ^= 1
        with pytest.raises(DamagedError):
            load(bytes(damaged))


def test_models_of_earlier_versions_have_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    content = {"format": 1, "settings": SETTINGS, "accuracy": 0.8}
    torch.save(content, path)
    assert load(path.read_bytes())["accuracy"] == 0.8


def test_a_damaged_model_is_trained_again_with_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    trained: list[int] = []

    def train() -> bytes:
        trained.append(1)
        return packed()

    for n_trained in (1, 1):
        assert load_or_train(path, load, train, False)["accuracy"] == 0.9
        assert len(trained) == n_trained
    damaged = bytearray(path.read_bytes())
    damaged[300] ^= 1
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match="does not match its checksum.*trained again"):
        assert load_or_train(path, load, train, False)["accuracy"] == 0.9
    assert len(trained) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_or_train(path, load, train, False)


def test_a_cache_that_cannot_be_written_is_known_before_the_training(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()

    def train() -> bytes:
        raise AssertionError("it was trained")

    message = r"Not a directory\. Pass root=.*CAPTUM_ATTNGRAD_CACHE"
    with pytest.raises(OSError, match=message):
        load_or_train(tmp_path / "file" / "model.pt", load, train, False)


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="IsADirectoryError|PermissionError"),
        pytest.raises(OSError, match="is a folder; expected a file"),
    ):
        load_or_train(tmp_path, load, packed, False)
