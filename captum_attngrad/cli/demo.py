r"""``captum-attngrad demo``: real reviews, a model trained here, and its report."""

import argparse
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captum_attngrad.cli.errors import UsageError
from captum_attngrad.compare import TextModel, compare
from captum_attngrad.compare.registry import resolve_methods
from captum_attngrad.datasets import MovieReviewSnippets
from captum_attngrad.models import trained_lstm
from captum_attngrad.visualization.text import require_ipython

# Sentences on whose sentiment the raters largely agreed.
_MIN_ABS_RATING = 1.0

_DESCRIPTION = """\
Explains held-out movie-review sentences with attention gradient and with other
methods, measures every explanation, prints the table and writes DIR/index.html.

The first run downloads the sentences (2.5 MB) and trains a small attention LSTM
(about a minute); both are kept in the cache folder and used again.
"""
_EPILOG = """\
examples:
  captum-attngrad demo --output report/
  captum-attngrad demo --output quick/ --limit 12
  captum-attngrad demo --output other/ --seed 1 --no-progress

The sentences and the model are kept where the environment variable
CAPTUM_ATTNGRAD_CACHE says; by default in the platform's cache folder.
"""


def _at_least(minimum: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number of {minimum} or more"
            )
        return number

    return convert


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``demo`` command."""
    parser = commands.add_parser(
        "demo",
        help="explain real movie reviews and write a report",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder for the report; it is made if it is missing, and an index.html "
        "in it is replaced",
    )
    parser.add_argument(
        "--limit",
        type=_at_least(1),
        default=100,
        metavar="N",
        help="number of held-out sentences, drawn at random (default: 100)",
    )
    parser.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        metavar="N",
        help="seed of the choice of sentences, of the methods that draw at random and "
        "of the intervals (default: 0); the model is always trained the same way",
    )
    parser.add_argument(
        "--no-progress", action="store_true", help="show no progress bars"
    )
    parser.set_defaults(run=run)


def _check_output(output: Path) -> None:
    """Known before the work, and not after it: whether the report can be written."""
    existing = output
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(
            f"argument --output: {str(existing)!r} is a file, not a folder"
        )
    if not os.access(existing, os.W_OK):
        raise UsageError(f"argument --output: cannot write to {str(existing)!r}")


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``demo`` command."""
    _check_output(arguments.output)
    require_ipython()
    methods = resolve_methods(None)

    try:
        reviews = MovieReviewSnippets(split="test", min_abs_rating=_MIN_ABS_RATING)
    except ValueError as error:  # the kept file is damaged; the message says which
        raise RuntimeError(str(error)) from error
    if arguments.limit > len(reviews):
        raise UsageError(
            f"argument --limit: {arguments.limit} is more than the {len(reviews)} "
            "held-out sentences there are"
        )
    trained = trained_lstm(
        show_progress=not arguments.no_progress, min_abs_rating=_MIN_ABS_RATING
    )
    text_model = TextModel.from_torch(
        trained.model,
        trained.tokenizer,
        trained.vocab,
        embedding=trained.model.embedding,
        layer=trained.model.attention,
    )
    chosen = random.Random(arguments.seed).sample(range(len(reviews)), arguments.limit)
    sample = [reviews[place] for place in chosen]
    result = compare(
        text_model,
        [review.text for review in sample],
        labels=[review.label for review in sample],
        methods=methods,
        seed=arguments.seed,
        settings={
            "data": f"held-out sentences of MovieReviewSnippets (Hutto and Gilbert, "
            f"2014) with a mean rating of at least {_MIN_ABS_RATING:g} away from 0, "
            "drawn at random",
            "test accuracy of the model": f"{trained.test_accuracy:.1%} of "
            f"{len(reviews)} held-out sentences",
            "removed tokens": "replaced by <unk>",
        },
        show_progress=not arguments.no_progress,
    )
    path = result.to_html(
        arguments.output / "index.html", title="Explanations of movie reviews compared"
    )
    print(result.table())
    print(f"\nReport: {path}")
