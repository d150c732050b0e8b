"""A checksum in the files that are kept, so that one changed byte is noticed.

Kept files are ZIP archives (``.npz``, and ``.pt`` of ``torch.save``). The checksum is
the archive's comment, at its very end, which readers of such files pass over.
"""

from __future__ import annotations

import hashlib
import re

_COMMENT = re.compile(rb"sha256:[0-9a-f]{64}\Z")
_COMMENT_LENGTH = len("sha256:") + 64
# How the last record of an archive without a comment starts, and how long it is.
_END, _END_LENGTH = b"PK\x05\x06", 22


class DamagedError(ValueError):
    """The content is not what was written."""


def seal(archive: bytes, name: str = "") -> bytes:
    r"""
    Puts a checksum into an archive.

    Args:
        archive (bytes): A ZIP archive without a comment.
        name (str, optional): What the content belongs to, so that it is not taken for
            something else.
            Default: ""

    Returns:
        *bytes*: The archive with its checksum.
    """
    body = archive[:-2]
    return body + _COMMENT_LENGTH.to_bytes(2, "little") + _comment(body, name)


def check_seal(content: bytes, name: str = "") -> None:
    r"""
    Raises a :class:`DamagedError` unless ``content`` is what :func:`seal` returned, or
    an archive without any checksum, as earlier versions wrote it.
    """
    if _COMMENT.search(content) is None:
        if content[-_END_LENGTH:].startswith(_END) and content.endswith(b"\0\0"):
            return
        raise DamagedError("it is cut or overwritten")
    body = content[: -_COMMENT_LENGTH - 2]
    if content != body + _COMMENT_LENGTH.to_bytes(2, "little") + _comment(body, name):
        raise DamagedError("its content does not match its checksum")


def _comment(body: bytes, name: str) -> bytes:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass") + b"\0" + body)
    return b"sha256:" + digest.hexdigest().encode("ascii")
