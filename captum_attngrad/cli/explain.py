r"""``captum-attngrad explain``: the words of texts, for and against the answer."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from captum_attngrad.cli.arguments import (
    MODEL_HELP,
    add_command,
    add_methods,
    add_progress,
    add_seed,
    chosen_methods,
    user_path,
)
from captum_attngrad.cli.classes import class_index
from captum_attngrad.cli.data import lines_of, texts_in
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.explanations import (
    WRITERS,
    Explanation,
    terminal_lines,
    words_of,
)
from captum_attngrad.cli.models import LoadedModel, check_known, check_runs, load_model
from captum_attngrad.cli.output import FORMATS, check_file, send
from captum_attngrad.evaluation.explaining import explain, reason
from captum_attngrad.evaluation.registry import Method
from captum_attngrad.text import TextModel
from captum_attngrad.text._texts import lone_surrogate

_DESCRIPTION = """\
Shows which words of a text support the predicted class (+, green) and which argue
against it (-, red); more signs for stronger words. Each method has a row.
"""
_EPILOG = """\
examples:
  captum-attngrad explain "A warm, funny film, if a bit slow." --model lstm
  captum-attngrad explain "It drags on." "It flies by." --model minilm \\
      --methods attention_gradient,leave_one_out --output explained.html
  captum-attngrad explain --file reviews.csv --text-column review --model lstm \\
      --output scores.json
  cat reviews.txt | captum-attngrad explain - --model lstm --output - --format csv
  captum-attngrad explain "It drags on." --model ./my-bert --target negative

Colors are left out where the output is not a terminal or NO_COLOR is set.
"""
_DEFAULT_METHODS = (
    "attention_gradient,attention_x_gradient,integrated_gradients,leave_one_out"
)


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``explain`` command."""
    parser = add_command(
        commands,
        "explain",
        "show which words support the answer and which argue against it",
        _DESCRIPTION,
        _EPILOG,
    )
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="a text to explain; - reads texts from standard input, one a line",
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="explain the texts of a file: a column of a .csv or .jsonl file, or each "
        "line of a .txt file",
    )
    parser.add_argument(
        "--text-column",
        default="text",
        metavar="NAME",
        help="column of the texts in a .csv or .jsonl file (default: text)",
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    add_methods(parser, _DEFAULT_METHODS)
    parser.add_argument(
        "--target",
        metavar="CLASS",
        help="name or number of the explained class (default: the predicted one)",
    )
    add_seed(parser, "seed of the methods that draw at random")
    parser.add_argument(
        "--word-pieces",
        action="store_true",
        help="show the tokenizer's word pieces; by default they are merged into words",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a page (.html) or the scores (.json, .csv) as well; an existing "
        "file is replaced. With - they go to standard output, and the words to "
        "standard error",
    )
    parser.add_argument(
        "--format",
        choices=WRITERS,
        help="format of the output (default: by its ending; html for -)",
    )
    add_progress(parser)
    parser.set_defaults(run=run)


def _texts(arguments: argparse.Namespace) -> list[str]:
    found: list[str] = []
    for text in arguments.texts:
        if text == "-":
            found += lines_of(sys.stdin.read())
        elif not text.strip():
            raise UsageError("argument TEXT: it is empty")
        else:
            found.append(text)
    if arguments.file is not None:
        path = user_path("--file", arguments.file)
        found += texts_in(path, arguments.text_column)
    if not found:
        raise UsageError(
            "there is no text to explain; give TEXT, - with lines on standard input, "
            "or --file"
        )
    for text in found:
        if lone_surrogate(text) is not None:
            raise UsageError(
                f"argument TEXT: {text!r:.60} holds what is not a character; expected "
                "UTF-8"
            )
    return found


def _target(text: str | None, class_names: Sequence[str]) -> int | None:
    if text is None:
        return None
    try:
        return class_index(text, class_names)
    except ValueError as error:
        raise UsageError(f"argument --target: {error}") from error


def _prediction(text_model: TextModel, p: torch.Tensor) -> str:
    """The predicted class, or all labels that a multi-label model predicts."""
    if text_model.outputs.exclusive:
        chosen = [int(p.argmax())]
    else:
        chosen = (p >= 0.5).nonzero().flatten().tolist()
    shown = [f"{text_model.class_names[i]} ({float(p[i]):.2f})" for i in chosen]
    return ", ".join(shown) or "none of the labels"


def _explained(
    loaded: LoadedModel,
    methods: Sequence[Method],
    texts: list[str],
    arguments: argparse.Namespace,
) -> list[Explanation]:
    """The texts in their order, explained batch by batch."""
    text_model = loaded.text_model
    target = _target(arguments.target, text_model.class_names)
    check_runs(arguments.model, text_model, texts[0])
    check_known("TEXT", loaded, texts)
    found: dict[int, Explanation] = {}
    for places, batch in text_model.batches(texts, [arguments.seed] * len(texts)):
        with torch.no_grad():
            p = text_model.probabilities(batch.input_ids, *batch.forward_args)
        targets = p.argmax(dim=1)
        if target is not None:
            targets = torch.full_like(targets, target)
        scores, failures = {}, {}
        for method in methods:
            try:
                scores[method.name] = explain(text_model, method, batch, targets)
            except Exception as error:  # reported, and the other methods go on
                failures[method.name] = reason(error)
        for row, place in enumerate(places):
            explained = int(targets[row])
            words, of_words = words_of(
                batch.tokens[row],
                {name: of_batch[row] for name, of_batch in scores.items()},
                arguments.word_pieces,
            )
            found[place] = Explanation(
                text=texts[place],
                predicted=_prediction(text_model, p[row]),
                explained=text_model.class_names[explained],
                probability=float(p[row, explained]),
                words=words,
                scores=of_words,
                failures=failures,
            )
    return [found[place] for place in range(len(texts))]


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``explain`` command."""
    path, to_stdout = None, False
    if arguments.output is not None:
        path = check_file(arguments.output, arguments.format)
        to_stdout = path is None
    elif arguments.format is not None:
        raise UsageError("argument --format: it needs --output")
    texts = _texts(arguments)
    methods = chosen_methods(arguments.methods)
    loaded = load_model(arguments.model, not arguments.no_progress)
    try:
        with loaded.text_model.evaluation_mode():
            found = _explained(loaded, methods, texts, arguments)
    except ValueError as error:
        raise UsageError(f"argument TEXT: {error}") from error
    if not any(one.scores for one in found):
        reasons = (f"{name}: {why}" for name, why in found[0].failures.items())
        raise RuntimeError(f"every method failed ({'; '.join(reasons)})")
    shown = sys.stderr if to_stdout else sys.stdout
    color = bool(shown and shown.isatty() and not os.environ.get("NO_COLOR"))
    width = max(len(method.name) for method in methods)
    for number, one in enumerate(found, start=1):
        if len(found) > 1:
            print(f"{'' if number == 1 else chr(10)}{number}. {one.text}", file=shown)
        for line in terminal_lines(one, width, color):
            print(line, file=shown)
    if arguments.output is not None:
        kind = arguments.format or (FORMATS[path.suffix.lower()] if path else "html")
        send(WRITERS[kind](found), path)
        if path is not None:
            print(f"\nWritten: {path}", file=shown)
