"""Files are replaced as a whole, and what is not a file is left alone."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from captum_attngrad._files import (
    check_folder_writable,
    check_writable,
    resolve_target,
    write_file,
)

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX has these kinds of files")
not_root = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere"
)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_replaced_as_a_whole_and_keeps_its_permissions(
    tmp_path: Path,
) -> None:
    path = tmp_path / "new" / "file"
    assert write_file(path, b"long content") == path
    if os.name != "nt":
        path.chmod(0o640)
    write_file(str(path), b"short")
    assert path.read_bytes() == b"short"
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert tree(tmp_path) == ["new", os.path.join("new", "file")]


@posix
def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, second = tmp_path / "link", tmp_path / "second"
    link.symlink_to(Path("folder") / "file")
    second.symlink_to(link)
    for content in (b"first", b"then"):
        write_file(second, content)
        assert (tmp_path / "folder" / "file").read_bytes() == content
    assert link.is_symlink()
    assert second.is_symlink()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match=r"Cannot write .*loop.*symbolic links"):
        write_file(loop, b"x")


@posix
def test_what_is_not_a_file_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "stdout").symlink_to("/dev/stdout")
    before = tree(tmp_path)
    for name, message in (
        ("fifo", "fifo' is a FIFO; expected a file"),
        ("folder", "folder' is a folder; expected a file"),
        ("device", "device' is a character device; expected a file"),
        ("stdout", "stdout' is an open file of a process"),
        ("/dev/null", "'/dev/null' is a character device"),
        ("/dev/stdout", "'/dev/stdout' is an open file of a process"),
        ("/proc/self/fd/1", "'/proc/self/fd/1' is an open file of a process"),
        ("a\0b", r"a\\x00b' holds a NUL character"),
        ("\ud83d", "surrogates not allowed"),
        ("x" * 300, "too long"),
        (os.path.join("fifo", "below"), "Not a directory"),
    ):
        with pytest.raises(OSError, match=message):
            write_file(tmp_path / name, b"x")
    assert tree(tmp_path) == before
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
        server.bind("socket")
        with pytest.raises(OSError, match="'socket' is a socket"):
            resolve_target("socket")


def test_long_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 240 + ".html")
    assert write_file(path, b"x").read_bytes() == b"x"


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"Cannot write .*file': No space left"):
        write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert tree(tmp_path) == ["file"]


def test_checks_leave_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new" / "file")
    check_folder_writable(tmp_path / "new" / "folder")
    assert tree(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file' is a file, not a folder"):
        check_folder_writable(tmp_path / "file" / "folder")
    with pytest.raises(OSError, match="too long"):
        check_folder_writable(tmp_path / ("x" * 300))
    with pytest.raises(OSError, match="NUL"):
        check_folder_writable("a\0b")


@pytest.mark.skipif(sys.platform != "linux", reason="a file system without files")
def test_a_file_system_without_files_is_noticed() -> None:
    with pytest.raises(OSError, match="cannot write to '/proc'"):
        check_folder_writable("/proc/folder")


@posix
@not_root
def test_protected_files_and_folders_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    path.chmod(0o400)
    with pytest.raises(OSError, match="is write-protected"):
        write_file(path, b"x")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError, match="cannot write to"):
            check_folder_writable(tmp_path)
    finally:
        tmp_path.chmod(0o700)
