r"""``captum-attngrad explain``: the words of one text, for and against the answer."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from captum_attngrad.cli.arguments import (
    MODEL_HELP,
    add_command,
    add_methods,
    add_progress,
    chosen_methods,
    seed,
)
from captum_attngrad.cli.classes import class_index
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.models import check_known, check_runs, load_model
from captum_attngrad.cli.output import check_page, send_page
from captum_attngrad.evaluation.explaining import explain, reason
from captum_attngrad.text import TextModel
from captum_attngrad.text._texts import lone_surrogate
from captum_attngrad.visualization import text_html, text_records
from captum_attngrad.visualization.page import page_of
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
        type=seed,
        default=0,
        metavar="N",
        help="seed of the methods that draw at random (default: 0)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a page (.html) as well; an existing file is replaced. With - the "
        "page goes to standard output, and the words to standard error",
    )
    add_progress(parser)
    parser.set_defaults(run=run)


def _target(text: str | None, class_names: Sequence[str], predicted: int) -> int:
    if text is None:
        return predicted
    try:
        return class_index(text, class_names)
    except ValueError as error:
        raise UsageError(f"argument --target: {error}") from error


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


def _prediction(text_model: TextModel, p: torch.Tensor) -> str:
    """The predicted class, or all labels that a multi-label model predicts."""
    if text_model.outputs.exclusive:
        chosen = [int(p.argmax())]
    else:
        chosen = (p >= 0.5).nonzero().flatten().tolist()
    shown = [f"{text_model.class_names[i]} ({float(p[i]):.2f})" for i in chosen]
    return f"Predicted {', '.join(shown) or 'none of the labels'}."


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``explain`` command."""
    if not arguments.text.strip():
        raise UsageError("argument TEXT: it is empty")
    if lone_surrogate(arguments.text) is not None:
        raise UsageError(
            f"argument TEXT: {arguments.text!r:.60} holds what is not a character; "
            "expected UTF-8"
        )
    path = None
    if arguments.output is not None:
        require_ipython()
        path = check_page(arguments.output)
    to_stdout = arguments.output is not None and path is None
    methods = chosen_methods(arguments.methods)
    loaded = load_model(arguments.model, not arguments.no_progress)
    text_model = loaded.text_model
    shown = sys.stderr if to_stdout else sys.stdout
    colour = shown and shown.isatty() and not os.environ.get("NO_COLOR")
    rows: dict[str, torch.Tensor] = {}
    failures = {}
    with text_model.evaluation_mode():
        try:
            batch = text_model.batch([arguments.text], [arguments.seed])
        except ValueError as error:
            raise UsageError(f"argument TEXT: {error}") from error
        check_known("TEXT", loaded, [arguments.text])
        check_runs(arguments.model, text_model, arguments.text)
        with torch.no_grad():
            p = text_model.probabilities(batch.input_ids, *batch.forward_args)[0]
        names = text_model.class_names
        predicted = int(p.argmax())
        target = _target(arguments.target, names, predicted)
        for method in methods:
            index = torch.tensor([target], device=p.device)
            try:
                scores = explain(text_model, method, batch, index)
                rows[method.name] = scores[0, : len(batch.tokens[0])].cpu()
            except Exception as error:  # reported, and the other methods go on
                failures[method.name] = reason(error)
    say = partial(print, file=shown)
    say(_prediction(text_model, p))
    say(f"Explained: {names[target]} ({float(p[target]):.2f}). + for it, - against it.")
    width = max(len(method.name) for method in methods)
    for name, scores in rows.items():
        marked = marked_tokens(batch.tokens[0], scores.tolist(), bool(colour))
        say(f"{name.ljust(width)}  {marked}")
    for name, why in failures.items():
        say(f"{name.ljust(width)}  failed: {why}")
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
        send_page(page_of(text_html(records), "Explained text"), path)
        if path is not None:
            say(f"\nPage: {path}")
