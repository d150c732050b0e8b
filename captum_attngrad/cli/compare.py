r"""``captum-attngrad compare``: methods × metrics on one's own model and texts."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from captum_attngrad.cli.arguments import (
    MODEL_HELP,
    add_command,
    add_methods,
    add_metrics,
    add_progress,
    add_seed,
    at_least,
    chosen_methods,
    chosen_metrics,
)
from captum_attngrad.cli.data import load_texts
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.models import check_known, check_runs, load_model
from captum_attngrad.cli.output import check_folder, output_error, print_and_write
from captum_attngrad.evaluation import compare

_DESCRIPTION = """\
Explains texts with several methods, measures every explanation, prints the table and
writes DIR/index.html and DIR/comparison.npz (for Comparison.load).

Finished parts are kept in DIR/parts: the same command, started again after it was
stopped, continues where it was.
"""
_EPILOG = """\
examples:
  captum-attngrad compare --model lstm --data movie-reviews --limit 50 --output report/
  captum-attngrad compare --model minilm --data movie-reviews --output report/ \\
      --methods attention_gradient,integrated_gradients,leave_one_out,random \\
      --metrics faithfulness,consistency
  captum-attngrad compare --model ./my-bert --data reviews.csv --text-column review \\
      --label-column stars --output report/
"""


class Preset(NamedTuple):
    """Defaults of the options; None for an option that has to be given, or that then
    means all."""

    title: str = "Explanations compared"
    model: str | None = None
    data: str | None = None
    methods: str | None = None
    metrics: str | None = None


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``compare`` command."""
    parser = add_command(
        commands,
        "compare",
        "compare methods on a model and texts of your own",
        _DESCRIPTION,
        _EPILOG,
    )
    add_options(parser, Preset())


def add_options(parser: argparse.ArgumentParser, preset: Preset) -> None:
    """Adds the options of a comparison, with defaults."""
    parser.add_argument(
        "--model",
        required=preset.model is None,
        default=preset.model,
        metavar="MODEL",
        help=MODEL_HELP + _default(preset.model),
    )
    parser.add_argument(
        "--data",
        required=preset.data is None,
        default=preset.data,
        metavar="DATA",
        help="movie-reviews, or a .csv or .jsonl file" + _default(preset.data),
    )
    parser.add_argument(
        "--text-column",
        default="text",
        metavar="NAME",
        help="column of the texts in the file (default: text)",
    )
    parser.add_argument(
        "--label-column",
        metavar="NAME",
        help="column of the labels in the file: 0, 1, ... or names of classes "
        "(default: label, if there is one)",
    )
    add_methods(parser, preset.methods)
    add_metrics(parser, preset.metrics)
    parser.add_argument(
        "--limit",
        type=at_least(1),
        metavar="N",
        help="number of texts, drawn at random (default: all of a file, 100 reviews)",
    )
    add_seed(
        parser,
        "seed of the choice of texts, of the methods that draw at random and of the "
        "intervals",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder for the report and the finished parts; made if it is missing",
    )
    add_progress(parser)
    parser.set_defaults(run=run, title=preset.title)


def _default(value: str | None) -> str:
    return "" if value is None else f" (default: {value})"


@contextmanager
def _threads_for(model: str) -> Iterator[None]:
    """One thread for the LSTM: on its small tensors threads wait for each other more
    than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if model == "lstm" else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``compare`` command."""
    output = check_folder(arguments.output)
    methods = chosen_methods(arguments.methods)
    metrics = chosen_metrics(arguments.metrics)
    loaded = load_model(arguments.model, not arguments.no_progress)
    found = load_texts(
        arguments.data,
        arguments.text_column,
        arguments.label_column,
        loaded.text_model.class_names,
        arguments.limit,
        arguments.seed,
    )
    check_runs(arguments.model, loaded.text_model, found.texts[0])
    try:
        check_known("--data", loaded, found.texts)
        with _threads_for(arguments.model):
            result = compare(
                loaded.text_model,
                found.texts,
                labels=found.labels,
                methods=methods,
                metrics=metrics,
                seed=arguments.seed,
                output=output,
                settings={"data": found.description, **loaded.settings},
                show_progress=not arguments.no_progress,
            )
    except ValueError as error:  # of texts, labels or the folder
        raise UsageError(str(error)) from error
    except OSError as error:  # everything else has been read by now
        raise output_error(error) from error
    print_and_write(result, output, arguments.title)
