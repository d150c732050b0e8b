r"""``captum-attngrad demo``: real reviews, a model trained here, and its report."""

import argparse
from pathlib import Path
from typing import Any

from captum_attngrad.cli.arguments import (
    add_command,
    add_methods,
    add_progress,
    at_least,
    check_folder,
    chosen_methods,
)
from captum_attngrad.cli.compare import print_and_write
from captum_attngrad.cli.data import load_texts
from captum_attngrad.cli.models import load_model
from captum_attngrad.compare import compare
from captum_attngrad.metrics import Comprehensiveness, Sufficiency
from captum_attngrad.visualization.text import require_ipython

_DESCRIPTION = """\
Explains held-out movie-review sentences with attention gradient and with other
methods, measures every explanation, prints the table and writes DIR/index.html and
DIR/comparison.npz.

The first run downloads the sentences (2.5 MB) and trains a small attention LSTM
(about a minute); both are kept in the cache folder and used again.
"""
METHODS = (
    "attention_gradient",
    "attention_x_gradient",
    "attention_weights",
    "integrated_gradients",
    "lime",
    "occlusion",
    "random",
)
_EPILOG = """\
examples:
  captum-attngrad demo --output report/
  captum-attngrad demo --output quick/ --limit 12
  captum-attngrad demo --output other/ --seed 1 --no-progress
  captum-attngrad demo --output lime/ --limit 20 --methods lime,kernel_shap,random

The sentences and the model are kept where the environment variable
CAPTUM_ATTNGRAD_CACHE says; by default in the platform's cache folder.
"""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``demo`` command."""
    parser = add_command(
        commands,
        "demo",
        "explain real movie reviews and write a report",
        _DESCRIPTION,
        _EPILOG,
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
        type=at_least(1),
        default=100,
        metavar="N",
        help="number of held-out sentences, drawn at random (default: 100)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="seed of the choice of sentences, of the methods that draw at random and "
        "of the intervals (default: 0); the model is always trained the same way",
    )
    add_methods(parser, ",".join(METHODS))
    add_progress(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``demo`` command."""
    check_folder(arguments.output)
    require_ipython()
    methods = chosen_methods(arguments.methods)
    show_progress = not arguments.no_progress
    class_names = ("negative", "positive")
    # The sentences first: without them the model cannot be trained.
    found = load_texts(
        "movie-reviews", "text", None, class_names, arguments.limit, arguments.seed
    )
    loaded = load_model("lstm", show_progress)
    result = compare(
        loaded.text_model,
        found.texts,
        labels=found.labels,
        methods=methods,
        metrics=[Comprehensiveness(), Sufficiency()],
        seed=arguments.seed,
        settings={"data": found.description, **loaded.settings},
        show_progress=show_progress,
    )
    print_and_write(result, arguments.output, "Explanations of movie reviews compared")
