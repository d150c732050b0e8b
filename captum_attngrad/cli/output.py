r"""Where results go: a folder, a page, or standard output."""

import sys
from pathlib import Path

from captum_attngrad._files import (
    check_folder_writable,
    check_writable,
    reason,
    resolve_target,
)
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.evaluation import Comparison
from captum_attngrad.visualization import write_page
from captum_attngrad.visualization.page import encoded

PAGE = "index.html"
NUMBERS = "comparison.npz"
_PARTS = "parts"

#: Names of the standard output.
STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
#: What the endings of a file say about its format.
FORMATS = {".html": "html", ".htm": "html", ".json": "json", ".csv": "csv"}


def check_folder(output: str) -> Path:
    """The folder of ``--output``. Checked before the work: whether results can be
    written there."""
    if output in ("", *STANDARD_OUTPUT):
        raise UsageError(
            f"argument --output: {output!r} is not a folder; a report is several files"
        )
    folder = Path(output)
    try:
        check_folder_writable(folder)
        for name in (PAGE, NUMBERS):
            resolve_target(folder / name)
        if (folder / _PARTS).exists():
            check_folder_writable(folder / _PARTS)
    except (OSError, ValueError) as error:
        raise output_error(error) from error
    return folder


def check_file(output: str, kind: str | None) -> Path | None:
    """The file of ``--output``, or None for the standard output. Its ending names the
    format unless ``kind`` does."""
    if output in STANDARD_OUTPUT:
        return None
    path = Path(output)
    try:
        resolve_target(path)
        if kind is None and path.suffix.lower() not in FORMATS:
            raise UsageError(
                f"argument --output: {output!r} does not end in .html, .json or .csv, "
                "and so names no format; - is the standard output"
            )
        check_writable(path)
    except (OSError, ValueError) as error:
        raise output_error(error) from error
    return path


def output_error(error: Exception) -> UsageError:
    """The error for an output that cannot be written."""
    why = reason(error) if isinstance(error, OSError) else error
    return UsageError(f"argument --output: {why}")


def send(content: str, path: Path | None) -> None:
    """Writes a text to a file, or to the standard output."""
    if path is None:
        # In UTF-8, as pages declare, whatever the terminal's encoding is.
        sys.stdout.flush()
        sys.stdout.buffer.write(encoded(content))
        sys.stdout.buffer.flush()
        return
    try:
        write_page(content, path)
    except OSError as error:
        raise output_error(error) from error


def print_and_write(result: Comparison, folder: Path, title: str) -> None:
    """Prints the table and writes the page and the numbers to the folder. If one of
    them cannot be written, the others still are."""
    problems = []
    try:
        result.save(folder / NUMBERS)
    except OSError as error:
        problems.append(f"argument --output: {reason(error)}")
    try:
        result.to_html(folder / PAGE, title=title)
    except OSError as error:
        problems.append(f"argument --output: {reason(error)}")
    except Exception as error:  # the numbers are written all the same
        problems.append(
            f"the page could not be made ({type(error).__name__}: {error!s:.200})"
        )
    print(result.table())
    if problems:
        raise UsageError("; ".join(problems))
    print(f"\nReport: {folder / PAGE}")
