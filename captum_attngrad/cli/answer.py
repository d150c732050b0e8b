r"""``captum-attngrad answer``: what in its sources a language model's answer read."""

import argparse
import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from captum_attngrad._extras import require
from captum_attngrad.attr import (
    AnswerAttribution,
    LLMAttentionGradient,
    SourcesInput,
    TextSegmentInput,
)
from captum_attngrad.attr.llm._segments import Span, Unit, segments
from captum_attngrad.cli.arguments import (
    add_command,
    add_progress,
    at_least,
    is_folder,
    user_path,
)
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.output import FORMATS, check_file, send
from captum_attngrad.visualization.answer import answer_page

_DESCRIPTION = """\
Lets a language model answer a question from sources, and shows what the answer read:
one signed score for each source, sentence or word.
"""
_EPILOG = """\
examples:
  captum-attngrad answer --model ./my-llm --question "What does a ticket cost?" \\
      --source prices.txt --source hours.txt --output answer.html
  captum-attngrad answer --model ./my-llm --prompt prompt.txt --by sentence \\
      --answer " 12 coins" --instead-of " 15 coins"
"""
_UNITS = ("source", "passage", "sentence", "line", "word")
_BAR = 24  # characters


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``answer`` command."""
    parser = add_command(
        commands,
        "answer",
        "show what a language model's answer read",
        _DESCRIPTION,
        _EPILOG,
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="FOLDER",
        help="the folder of a Hugging Face language model with its tokenizer",
    )
    parser.add_argument(
        "--gguf", metavar="FILE", help="the name of a GGUF file in that folder"
    )
    parser.add_argument("--question", metavar="TEXT", help="the question")
    parser.add_argument(
        "--source",
        action="append",
        metavar="FILE",
        help="a text to answer from; may be given several times",
    )
    parser.add_argument(
        "--prompt",
        metavar="FILE",
        help="the whole prompt, in place of --question and --source",
    )
    parser.add_argument(
        "--answer", metavar="TEXT", help="the answer (default: what the model says)"
    )
    parser.add_argument(
        "--instead-of",
        metavar="TEXT",
        help="another answer: explain why the model prefers the first to it",
    )
    parser.add_argument(
        "--by",
        choices=_UNITS,
        help="what gets a score (default: source, or sentence with --prompt)",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=at_least(1),
        default=64,
        metavar="N",
        help="length of an answer that the model gives (default: 64)",
    )
    parser.add_argument(
        "--top",
        type=at_least(1),
        default=10,
        metavar="N",
        help="how many scores to show (default: 10)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a page (.html), everything (.json) or a table (.csv) as well; an "
        "existing file is replaced. With - a page goes to standard output",
    )
    add_progress(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``answer`` command."""
    path = None if arguments.output is None else check_file(arguments.output, None)
    to_stdout = arguments.output is not None and path is None
    texts, prompt = _texts(arguments)
    model, tokenizer = _load(arguments.model, arguments.gguf)
    try:
        result = _explained(arguments, texts, prompt, model, tokenizer)
    except ValueError as error:
        raise UsageError(str(error)) from error
    shown = sys.stderr if to_stdout else sys.stdout
    for line in terminal_lines(result, arguments.top):
        print(line, file=shown)
    if arguments.output is not None:
        kind = FORMATS[path.suffix.lower()] if path else "html"
        send(_WRITERS[kind](result), path)
        if path is not None:
            print(f"\nWritten: {path}", file=shown)


def _texts(arguments: argparse.Namespace) -> tuple[list[str], str | None]:
    """The sources, or the prompt."""
    if arguments.prompt is not None:
        if arguments.question is not None or arguments.source:
            raise UsageError(
                "argument --prompt: it takes the place of --question and --source"
            )
        if arguments.by == "source":
            raise UsageError("argument --by: a prompt has no sources")
        return [], _read("--prompt", arguments.prompt)
    if arguments.question is None or not arguments.source:
        raise UsageError("expected --question and --source, or --prompt")
    return [_read("--source", name).strip() for name in arguments.source], None


def _read(argument: str, name: str) -> str:
    try:
        text = user_path(argument, name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"argument {argument}: {name!r:.200}: {error}") from error
    if not text.strip():
        raise UsageError(f"argument {argument}: {name!r:.200} is empty")
    return text


def _load(name: str, gguf: str | None) -> tuple[Any, Any]:
    folder: Path = user_path("--model", name)
    if not is_folder(folder):
        raise UsageError(f"argument --model: {name!r:.200} is not a folder")
    require("transformers", "A language model", "huggingface")
    from captum_attngrad.cli.huggingface import LoadingError, load_language_model

    try:
        return load_language_model(folder, gguf)
    except (LoadingError, ValueError) as error:
        raise UsageError(f"argument --model: {name!r:.200}: {error}") from error


def _explained(
    arguments: argparse.Namespace,
    sources: Sequence[str],
    prompt: str | None,
    model: Any,
    tokenizer: Any,
) -> AnswerAttribution:
    by = arguments.by or ("source" if prompt is None else "sentence")
    inp: SourcesInput | TextSegmentInput
    if prompt is not None:
        inp = TextSegmentInput(prompt, cast(Unit, by))
    else:
        chat = getattr(tokenizer, "chat_template", None) is not None
        inp = SourcesInput(
            sources, arguments.question, tokenizer=tokenizer if chat else None
        )
    options = None
    if arguments.answer is None:
        options = {"max_new_tokens": arguments.max_new_tokens, "do_sample": False}
    result: AnswerAttribution = LLMAttentionGradient(model, tokenizer).attribute(
        inp,
        arguments.answer,
        options,
        contrast=arguments.instead_of,
        show_progress=not arguments.no_progress,
    )
    if by == "source" or prompt is not None:
        return result
    return result.aggregate(spans=_inside(result.prompt_text, sources, by))


def _inside(text: str, sources: Sequence[str], by: str) -> list[Span]:
    """The segments of the sources, where they stand in the prompt."""
    spans, place = [], 0
    for source in sources:
        start = text.index(source, place)
        spans += [(start + a, start + b) for a, b in segments(source, cast(Unit, by))]
        place = start + len(source)
    return spans


def terminal_lines(result: AnswerAttribution, top: int) -> list[str]:
    """The answer, and the features that spoke most for and against it."""
    lines = [f"Answer: {result.answer_text}", ""]
    found = result.top(len(result.input_tokens))
    if len(found) > top:
        # Both ends: what speaks against the answer is the last.
        found = [*found[: top - top // 3], *found[len(found) - top // 3 :]]
    most = max((abs(each.score) for each in found), default=0.0)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for name, score, _ in found:
        bar = "█" * round(_BAR * abs(score) / most) if most else ""
        if color:
            bar = f"\033[{32 if score > 0 else 35}m{bar}\033[0m"
        lines.append(f"{score:+10.3f}  {bar}")
        lines.append(f"            {' '.join(name.split())[:200]}")
    return lines


def _as_csv(result: AnswerAttribution) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["feature", "score"])
    writer.writerows(zip(result.input_tokens, result.seq_attr.tolist(), strict=True))
    return text.getvalue()


_WRITERS = {
    "html": answer_page,
    "json": lambda result: result.to_json() + "\n",
    "csv": _as_csv,
}
