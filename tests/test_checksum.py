"""Every changed byte of a sealed archive is noticed."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from captum_attngrad._checksum import DamagedError, check_seal, seal


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, scores=np.arange(5.0))
    return buffer.getvalue()


def test_a_sealed_archive_is_read_as_before() -> None:
    sealed = seal(archive(), "part")
    check_seal(sealed, "part")
    assert zipfile.ZipFile(io.BytesIO(sealed)).testzip() is None
    assert np.load(io.BytesIO(sealed))["scores"].tolist() == [0, 1, 2, 3, 4]
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, buffer)
    found = torch.load(io.BytesIO(seal(buffer.getvalue())), weights_only=True)
    assert found["weight"].tolist() == [1, 1]


def test_every_changed_byte_is_noticed() -> None:
    sealed = seal(archive(), "part")
    for place in range(len(sealed)):
        for change in (1, 0x20, 0xFF):
            damaged = bytearray(sealed)
            damaged[place] ^= change
            with pytest.raises(DamagedError):
                check_seal(bytes(damaged), "part")


@pytest.mark.parametrize("end", [0, 1, 50, -1, -80])
def test_a_cut_archive_is_noticed(end: int) -> None:
    with pytest.raises(DamagedError, match="it is cut or overwritten"):
        check_seal(seal(archive())[:end])


def test_an_archive_of_something_else_is_noticed() -> None:
    with pytest.raises(DamagedError, match="does not match its checksum"):
        check_seal(seal(archive(), "part"), "other part")


def test_archives_of_earlier_versions_have_no_checksum() -> None:
    check_seal(archive(), "part")
