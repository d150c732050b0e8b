r"""``captum-attngrad explain``: the words of one text, for and against the answer."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from captum_attngrad.cli.arguments import (
    MODEL_HELP,
    add_command,
    add_methods,
    add_progress,
    at_least,
    chosen_methods,
)
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.models import load_model
from captum_attngrad.compare.evaluate import explain, reason
from captum_attngrad.visualization import save_html, text_html, text_records
from captum_attngrad.visualization.text import require_ipython

_DESCRIPTION = """\
Shows which words of a text speak for the predicted class (+, green) and which against
it (-, red); more signs for stronger words. Each method has a row.
"""
_EPILOG = """\
examples:
  captum-attngrad explain "A warm, funny film, if a bit slow." --model lstm
  captum-attngrad explain "It drags on." --model minilm \\
      --methods attention_gradient,leave_one_out --output explained.html
  captum-attngrad explain "It drags on." --model ./my-bert --target negative

Colours are left out where the output is no terminal or NO_COLOR is set.
"""
_DEFAULT_METHODS = (
    "attention_gradient,attention_x_gradient,integrated_gradients,leave_one_out"
)
_GREEN, _RED, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[0m"
_BOLD = "\x1b[1m"


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``explain`` command."""
    parser = add_command(
        commands,
        "explain",
        "show which words speak for and against the answer",
        _DESCRIPTION,
        _EPILOG,
    )
    parser.add_argument("text", metavar="TEXT", help="the text to explain")
    parser.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    add_methods(parser, _DEFAULT_METHODS)
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="name or number of the explained class (default: the predicted one)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        metavar="N",
        help="seed of the methods that draw at random (default: 0)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write a page (.html) as well; an existing file is replaced",
    )
    add_progress(parser)
    parser.set_defaults(run=run)


def _target(text: str | None, class_names: Sequence[str], predicted: int) -> int:
    if text is None:
        return predicted
    if text in class_names:
        return list(class_names).index(text)
    if text.isdecimal() and int(text) < len(class_names):
        return int(text)
    raise UsageError(
        f"argument --target: {text!r} is no class; expected one of: "
        f"{', '.join(class_names)}, or 0 to {len(class_names) - 1}"
    )


def marked_tokens(tokens: Sequence[str], scores: Sequence[float], colour: bool) -> str:
    """Tokens with one to three signs for the strength of their scores."""
    largest = max((abs(score) for score in scores), default=0.0)
    shown = []
    for token, score in zip(tokens, scores, strict=True):
        share = abs(score) / largest if largest > 0 else 0.0
        n_signs = sum(share >= edge for edge in (0.1, 1 / 3, 2 / 3))
        if n_signs == 0:
            shown.append(token)
            continue
        marked = ("+" if score > 0 else "-") * n_signs + token
        if colour:
            bold = _BOLD if n_signs == 3 else ""
            marked = f"{_GREEN if score > 0 else _RED}{bold}{marked}{_OFF}"
        shown.append(marked)
    return " ".join(shown)


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``explain`` command."""
    if not arguments.text.strip():
        raise UsageError("argument TEXT: it is empty")
    if arguments.output is not None:
        require_ipython()
        if arguments.output.is_dir():
            raise UsageError(
                f"argument --output: {str(arguments.output)!r} is a folder; expected "
                "a file"
            )
    methods = chosen_methods(arguments.methods)
    loaded = load_model(arguments.model, not arguments.no_progress)
    text_model = loaded.text_model
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    rows: dict[str, torch.Tensor] = {}
    failures = {}
    with text_model.evaluation_mode():
        try:
            batch = text_model.batch([arguments.text], [arguments.seed])
        except ValueError as error:
            raise UsageError(f"argument TEXT: {error}") from error
        with torch.no_grad():
            p = text_model.probabilities(batch.input_ids, batch.attention_mask)[0]
        names = text_model.class_names
        predicted = int(p.argmax())
        target = _target(arguments.target, names, predicted)
        for method in methods:
            index = torch.tensor([target], device=p.device)
            try:
                rows[method.name] = (
                    explain(text_model, method, batch, index)
                    .scores[0, : len(batch.tokens[0])]
                    .cpu()
                )
            except Exception as error:  # reported, and the other methods go on
                failures[method.name] = reason(error)
    print(f"Predicted {names[predicted]} ({float(p[predicted]):.2f}).")
    print(
        f"Explained: {names[target]} ({float(p[target]):.2f}). + for it, - against it."
    )
    width = max(len(method.name) for method in methods)
    for name, scores in rows.items():
        shown = marked_tokens(batch.tokens[0], scores.tolist(), bool(colour))
        print(f"{name.ljust(width)}  {shown}")
    for name, why in failures.items():
        print(f"{name.ljust(width)}  failed: {why}")
    if not rows:
        raise RuntimeError("every method failed")
    if arguments.output is not None:
        records = text_records(
            [batch.tokens[0]] * len(rows),
            list(rows.values()),
            pred_prob=float(p[predicted]),
            pred_class=names[predicted],
            true_class="not given",
            attr_class=[f"{names[target]} by {name}" for name in rows],
        )
        path = save_html(text_html(records), arguments.output, title="Explained text")
        print(f"\nPage: {path}")
