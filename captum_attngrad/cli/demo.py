r"""``captum-attngrad demo``: real reviews, a model trained here, and its report."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from captum_attngrad.cli.arguments import (
    add_command,
    add_methods,
    add_metrics,
    add_progress,
    at_least,
    chosen_methods,
    chosen_metrics,
    seed,
)
from captum_attngrad.cli.data import load_texts
from captum_attngrad.cli.models import load_model
from captum_attngrad.cli.output import check_folder, print_and_write
from captum_attngrad.evaluation import compare
from captum_attngrad.visualization.text import require_ipython

_DESCRIPTION = """\
Explains held-out movie-review sentences with attention gradient and with other
methods, measures faithfulness, resilience, consistency and sensitivity of every
explanation, prints the tables and writes DIR/index.html and DIR/comparison.npz.

The first run downloads the sentences (2.5 MB) and trains a small attention LSTM
(about a minute); both are kept in the cache folder and used again. The rest takes a
few minutes for 100 sentences, on one processor.
"""
METHODS = (
    "attention_gradient",
    "attention_x_gradient",
    "attention_gradient_centred",
    "attention_x_gradient_centred",
    "integrated_attention_gradient",
    "joint_integrated_gradients",
    "attention_deep_lift",
    "attention_deep_lift_joint",
    "attention_weights",
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "lime",
    "occlusion",
    "random",
)
# Of each property those that say different things.
METRICS = (
    "comprehensiveness",
    "sufficiency",
    "inhibitor_words",
    "polarity_violation",
    "leave_one_out_agreement",
    "infidelity",
    "invariance_spearman",
    "neighbors_spearman",
    "cohesion",
    "silhouette_gain",
    "token_attack_auroc",
    "attack_localization",
    "parameter_randomization",
    "forward_passes",
    "backward_passes",
)
_EPILOG = """\
examples:
  captum-attngrad demo --output report/
  captum-attngrad demo --output quick/ --limit 12
  captum-attngrad demo --output other/ --seed 1 --no-progress
  captum-attngrad demo --output shap/ --limit 20 --methods lime,kernel_shap,random \\
      --metrics faithfulness,consistency

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
        type=seed,
        default=0,
        metavar="N",
        help="seed of the choice of sentences, of the methods that draw at random and "
        "of the intervals (default: 0); the model is always trained the same way",
    )
    add_methods(parser, ",".join(METHODS))
    add_metrics(parser, ",".join(METRICS))
    add_progress(parser)
    parser.set_defaults(run=run)


@contextmanager
def _one_thread() -> Iterator[None]:
    """On the small tensors of this LSTM threads wait for each other more than they
    work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``demo`` command."""
    output = check_folder(arguments.output)
    require_ipython()
    methods = chosen_methods(arguments.methods)
    metrics = chosen_metrics(arguments.metrics)
    show_progress = not arguments.no_progress
    class_names = ("negative", "positive")
    # The sentences first: without them the model cannot be trained.
    found = load_texts(
        "movie-reviews", "text", None, class_names, arguments.limit, arguments.seed
    )
    loaded = load_model("lstm", show_progress)
    with _one_thread():
        result = compare(
            loaded.text_model,
            found.texts,
            labels=found.labels,
            methods=methods,
            metrics=metrics,
            seed=arguments.seed,
            settings={"data": found.description, **loaded.settings},
            show_progress=show_progress,
        )
    print_and_write(result, output, "Explanations of movie reviews compared")
