r"""Data files as rows: each a line number and the values by their names."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captum_attngrad.cli.errors import UsageError

Row = tuple[int, dict[str, Any]]

_MAX_FIELD = 2**31 - 1


def rows_of(path: Path, argument: str) -> Iterator[Row]:
    r"""
    The rows of a .csv or .jsonl file.

    Args:
        path (Path): The file, in UTF-8.
        argument (str): The argument that names it, for messages.

    Yields:
        *tuple of int and dict*: The line on which the row starts, and its values.

    Raises:
        UsageError: If the file has another ending or cannot be read.
        ValueError: If it does not hold what its ending says, with the line.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    if path.suffix.lower() not in readers:
        raise UsageError(
            f"argument {argument}: {str(path)!r} is not a .csv or .jsonl file"
        )
    return readers[path.suffix.lower()](read_text(path, argument))


def read_text(path: Path, argument: str) -> str:
    """A file in UTF-8. Raises as :func:`rows_of` does."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # the latter of a path with NUL
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"argument {argument}: cannot read {str(path)!r}: {why}"
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x}); save "
            "the file as UTF-8"
        ) from error


def _csv_rows(text: str) -> Iterator[Row]:
    limit = csv.field_size_limit(_MAX_FIELD)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(f"line {line} is not CSV: {error}") from error
            if not values:
                continue
            if header is None:
                header = _header(line, values)
                continue
            # Spreadsheets fill up short rows with commas.
            while len(values) > len(header) and not values[-1].strip():
                values.pop()
            if len(values) != len(header):
                hint = "a value is missing"
                if len(values) > len(header):
                    hint = "put a value that holds a comma in double quotes"
                raise ValueError(
                    f"line {line} has {len(values)} values and the first line names "
                    f"{len(header)} columns; {hint}"
                )
            yield line, dict(zip(header, values, strict=True))
    finally:
        csv.field_size_limit(limit)


def _header(line: int, values: list[str]) -> list[str]:
    names = [name.strip() for name in values]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"line {line} names the column {twice[0]!r} twice")
    return names


def _jsonl_rows(text: str) -> Iterator[Row]:
    for line, content in enumerate(io.StringIO(text, newline=None), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"line {line} is not JSON: {error.msg} at character {error.pos + 1}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {line}: {error!s:.200}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {line} is not an object: {content.strip()!r:.60}")
        yield line, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return found
