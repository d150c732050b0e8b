r"""The command line, and its errors in one line each."""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TextIO

import captum_attngrad
from captum_attngrad import __version__
from captum_attngrad.cli import answer, compare, demo, explain, layers, verify
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.evaluation.explaining import reason

#: If it is set, an unexpected error shows its traceback.
_TRACEBACK = "CAPTUM_ATTNGRAD_TRACEBACK"

_DESCRIPTION = (
    "Which words did an attention model use, for and against its answer? "
    "Attention gradient for Captum."
)
_EPILOG = """\
examples:
  captum-attngrad demo --output report/
  captum-attngrad explain "A warm, funny film." --model lstm
  captum-attngrad compare --model lstm --data movie-reviews --output report/
  captum-attngrad answer --model ./my-llm --question "..." --source notes.txt
  captum-attngrad layers --model minilm
  captum-attngrad verify --model ./my-bert
  captum-attngrad compare --help
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front of it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="captum-attngrad",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {__version__}"
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    for command in (demo, compare, explain, answer, layers, verify):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    r"""
    Runs the ``captum-attngrad`` command.

    Args:
        argv (Sequence of str, optional): Arguments, without the name of the command;
            None takes those of this process.
            Default: None

    Returns:
        *int*: Exit status: 0; 1 where something could not be done, or a model is not
        verified; 130 where the user
        stopped it.

    Raises:
        SystemExit: With status 2 after one line on standard error if the arguments, or
            files that they name, are wrong; with status 0 after ``--help`` and
            ``--version``.
    """
    # A terminal that lacks arrows and other signs must not end the run.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    parser = _parser()
    arguments = parser.parse_args(argv)
    command = f"captum-attngrad {arguments.command}"
    try:
        with _warnings_in_a_line(command):
            arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        line = " ".join(str(error).split())
        print(f"{command}: error: {line} (see {command} --help)", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        # The reader has closed the pipe; write nothing more to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError, RuntimeError) as error:
        print(f"{command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{command}: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        print(
            f"{command}: error: unexpected {reason(error)} (a defect; to see where, "
            f"set {_TRACEBACK}=1)",
            file=sys.stderr,
        )
        return 1
    return 0


@contextmanager
def _warnings_in_a_line(command: str) -> Iterator[None]:
    """Shows our own warnings without their place in the code, and whatever filters are
    set: they are for the user of the command."""
    own = os.path.dirname(captum_attngrad.__file__)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        before = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if filename.startswith(own) and file is None:
                print(f"{command}: warning: {message}", file=sys.stderr)
            else:
                before(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
