from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import platformdirs
import pytest

from captum_attngrad import _cache, _extras


def test_the_variable_chooses_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CAPTUM_ATTNGRAD_CACHE", str(tmp_path / "here"))
    assert _cache.cache_dir() == tmp_path / "here"
    assert _cache.resolve_root(None, "data") == tmp_path / "here" / "data"
    assert _cache.resolve_root(tmp_path, "data") == tmp_path
    monkeypatch.setenv("CAPTUM_ATTNGRAD_CACHE", "~/there")
    assert _cache.cache_dir() == Path.home() / "there"


def test_the_platform_chooses_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CAPTUM_ATTNGRAD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = platformdirs.user_cache_path("captum_attngrad", False, opinion=False)
    assert _cache.cache_dir() == expected
    if sys.platform == "linux":
        assert _cache.cache_dir() == tmp_path / "captum_attngrad"


def test_without_platformdirs_the_folder_can_still_be_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_extras, "find_spec", lambda name: None)
    monkeypatch.delenv("CAPTUM_ATTNGRAD_CACHE", raising=False)
    with pytest.raises(
        ImportError,
        match=r"pip install 'captum-attngrad\[datasets\]' .*pip install -e "
        r"'\.\[datasets\]'",
    ):
        _cache.cache_dir()
    assert _cache.resolve_root(tmp_path, "data") == tmp_path
    monkeypatch.setenv("CAPTUM_ATTNGRAD_CACHE", str(tmp_path))
    assert _cache.cache_dir() == tmp_path


def test_writing_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    _cache.write_atomically(path, b"long content")
    _cache.write_atomically(path, b"short")
    assert path.read_bytes() == b"short"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX")
def test_the_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    _cache.write_atomically(tmp_path / "ours", b"x")
    (tmp_path / "usual").write_bytes(b"x")
    ours, usual = (
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "usual")
    )
    assert ours == usual


def test_a_failed_write_keeps_the_old_file_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(OSError, match=r"root=.*CAPTUM_ATTNGRAD_CACHE"):
        _cache.write_atomically(tmp_path / "file" / "below", b"x")
    # A folder cannot be replaced by a file: the last step fails.
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="Cannot write"):
        _cache.write_atomically(tmp_path / "folder", b"x")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"in the way"
