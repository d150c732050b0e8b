r"""Reading the command line, and what is said when something is wrong with it."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from captum_attngrad import __version__
from captum_attngrad.cli import compare, demo, explain, layers
from captum_attngrad.cli.errors import UsageError

_DESCRIPTION = (
    "Which words did an attention model use, for and against its answer? "
    "Attention gradient for Captum."
)
_EPILOG = """\
examples:
  captum-attngrad demo --output report/
  captum-attngrad explain "A warm, funny film." --model lstm
  captum-attngrad compare --model lstm --data movie-reviews --output report/
  captum-attngrad layers --model minilm
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
    for command in (demo, compare, explain, layers):
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
        *int*: Exit status: 0; 1 where something could not be done; 130 where the user
        stopped it.

    Raises:
        SystemExit: With status 2 after one line on standard error if the arguments are
            wrong, with status 0 after ``--help`` and ``--version``.
    """
    # Arrows and other signs must not end the run where the terminal lacks them.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except UsageError as error:
        print(
            f"captum-attngrad {arguments.command}: error: {error} "
            f"(see captum-attngrad {arguments.command} --help)",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except (ImportError, OSError, RuntimeError) as error:
        print(f"captum-attngrad {arguments.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"captum-attngrad {arguments.command}: stopped", file=sys.stderr)
        return 130
    return 0
