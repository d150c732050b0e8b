r"""Options that several commands share, and reading their values."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from captum_attngrad.cli.errors import UsageError
from captum_attngrad.evaluation import available_methods, available_metrics
from captum_attngrad.evaluation.metric_names import default_metrics, resolve_metrics
from captum_attngrad.evaluation.registry import Method, resolve_methods
from captum_attngrad.metrics import Metric

MODEL_HELP = (
    "lstm (an attention LSTM trained here on movie reviews), minilm (MiniLM fine-tuned "
    "here on them; needs the extra minilm), or the folder of a Hugging Face sequence "
    "classifier with its tokenizer"
)


#: The largest seed that PyTorch's generators take.
_MAX_SEED = 2**64 - 1


def at_least(minimum: int) -> Callable[[str], int]:
    """A type of argument: whole numbers from ``minimum`` on."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(
                f"{text!r:.60} is not a whole number of {minimum} or more"
            )
        return number

    return convert


def seed(text: str) -> int:
    """A type of argument: seeds that every random generator takes."""
    number = at_least(0)(text)
    if number > _MAX_SEED:
        raise argparse.ArgumentTypeError(
            f"{text!r:.60} is too large; expected a whole number from 0 to {_MAX_SEED}"
        )
    return number


def user_path(argument: str, text: str) -> Path:
    """A path as a user writes it, with ~ for the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"argument {argument}: {text!r:.200}: {error}") from error


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False also for a path that cannot exist."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def add_command(
    commands: "argparse._SubParsersAction[Any]",
    name: str,
    summary: str,
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """Adds a command with its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser


def _listed(names: str | None) -> str:
    """Names with spaces between them, where a line can break."""
    return "" if names is None else names.replace(",", ", ")


def add_methods(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Adds ``--methods``."""
    parser.add_argument(
        "--methods",
        metavar="NAMES",
        default=default,
        help="names of methods, separated by commas, or all (default: "
        f"{_listed(default) or 'all but the variants of others'}). There are: "
        f"{', '.join(available_methods())}",
    )


def add_metrics(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Adds ``--metrics``."""
    properties = dict.fromkeys(metric.property for metric in default_metrics())
    parser.add_argument(
        "--metrics",
        metavar="NAMES",
        default=default,
        help=f"names of metrics or of properties ({', '.join(properties)}), separated "
        f"by commas (default: {_listed(default) or 'all properties'}). There are: "
        f"{', '.join(available_metrics())}",
    )


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``--seed``."""
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help=f"{what} (default: 0)"
    )


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Adds ``--no-progress``."""
    parser.add_argument(
        "--no-progress", action="store_true", help="show no progress bars"
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def chosen_methods(text: str | None) -> tuple[Method, ...]:
    """The methods that ``--methods`` names."""
    names: Sequence[str] | None = None if text is None else _names(text)
    if text == "all":
        names = available_methods()
    try:
        return resolve_methods(names)
    except ValueError as error:
        raise UsageError(f"argument --methods: {error}") from error


def chosen_metrics(text: str | None) -> tuple[Metric, ...]:
    """The metrics that ``--metrics`` names."""
    if text is None:
        return default_metrics()
    names: list[str] = []
    for name in _names(text):
        of_property = [m.name for m in default_metrics() if m.property == name]
        names += of_property or [name]
    try:
        return resolve_metrics(names)
    except ValueError as error:
        raise UsageError(f"argument --metrics: {error}") from error
