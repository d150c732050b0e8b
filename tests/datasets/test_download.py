from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from captum_attngrad.datasets import MovieReviewSnippets, _download
from tests.datasets.made_up import FILE_NAME, NUM_ROWS, reviews_file


@pytest.mark.network
def test_two_processes_may_download_at_once(tmp_path: Path) -> None:
    program = (
        "from captum_attngrad.datasets import MovieReviewSnippets\n"
        "print(len(MovieReviewSnippets(split='all')))"
    )
    cache = tmp_path / "cache"
    environment = {**os.environ, "CAPTUM_ATTNGRAD_CACHE": str(cache)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=300)
        assert run.returncode == 0, err
        assert out.strip() == str(NUM_ROWS)
    # One file, and nothing half-written beside it.
    assert [p.name for p in (cache / "movie_reviews").iterdir()] == [FILE_NAME]


@pytest.mark.network
def test_the_second_use_touches_no_network(
    reviews_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/there/is/no/python")
    assert len(MovieReviewSnippets(reviews_root, "all")) == NUM_ROWS


@pytest.mark.network
def test_the_source_distribution_may_be_put_there_by_hand(tmp_path: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--dest", str(tmp_path)),
            *"--no-deps --no-binary vaderSentiment vaderSentiment==3.3.2".split(),
        ],
        check=True,
        capture_output=True,
    )
    (found,) = tmp_path.glob("*.tar.gz")
    found.rename(tmp_path / "vaderSentiment-3.3.2.tar.gz")
    assert len(MovieReviewSnippets(tmp_path, "all", download=False)) == NUM_ROWS
    assert (tmp_path / FILE_NAME).is_file()


def test_another_file_under_its_name_is_refused(tmp_path: Path) -> None:
    sdist = tmp_path / "vaderSentiment-3.3.2.tar.gz"
    sdist.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"is not the source distribution.*5d7c06e0"):
        MovieReviewSnippets(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


def test_download_false_says_which_file_goes_where(tmp_path: Path) -> None:
    root = tmp_path / "not made yet"
    with pytest.raises(FileNotFoundError) as caught:
        MovieReviewSnippets(root, download=False)
    message = str(caught.value)
    assert repr(str(root / FILE_NAME)) in message
    assert repr(str(root / "vaderSentiment-3.3.2.tar.gz")) in message
    assert "vaderSentiment==3.3.2" in message
    assert not root.exists()


def test_without_a_network_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(RuntimeError, match="could not be downloaded") as caught:
        MovieReviewSnippets(tmp_path)
    message = str(caught.value)
    assert "vaderSentiment==3.3.2" in message
    assert repr(str(tmp_path / "vaderSentiment-3.3.2.tar.gz")) in message
    assert "Downloading the movie reviews" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_pip_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=os.name != "nt")
    folder = "Scripts" if os.name == "nt" else "bin"
    bare = str(tmp_path / "bare" / folder / "python")
    monkeypatch.setattr(sys, "executable", bare)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(RuntimeError, match="has no pip") as caught:
        MovieReviewSnippets(tmp_path / "data")
    assert f"{bare} -m ensurepip" in str(caught.value)
    assert "vaderSentiment-3.3.2.tar.gz" in str(caught.value)


# Reading one member of an archive -------------------------------------------------


def _archive(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def test_only_the_named_member_is_read() -> None:
    archive = _archive(
        (tarfile.TarInfo("../../escape"), b"no"),
        (tarfile.TarInfo("folder/wanted"), reviews_file()),
        (tarfile.TarInfo("wanted"), b"no"),
    )
    assert _download.read_member(archive, "folder/wanted") == reviews_file()


def test_a_missing_member_is_named() -> None:
    archive = _archive((tarfile.TarInfo("other"), b"x"))
    with pytest.raises(ValueError, match="does not hold the file 'wanted'"):
        _download.read_member(archive, "wanted")


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("wanted")
    link.type = tarfile.SYMTYPE
    link.linkname = str(tmp_path)
    with pytest.raises(ValueError, match="not a regular file"):
        _download.read_member(_archive((link, b"")), "wanted")


def test_a_far_too_large_member_is_refused() -> None:
    archive = _archive((tarfile.TarInfo("wanted"), bytes(16 * 2**20 + 1)))
    with pytest.raises(ValueError, match="at most 16777216 bytes"):
        _download.read_member(archive, "wanted")
