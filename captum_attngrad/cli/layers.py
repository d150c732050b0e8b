r"""``captum-attngrad layers``: the attention layers of a model."""

import argparse
from typing import Any

from captum_attngrad.capture import find_attention_layers
from captum_attngrad.cli.arguments import MODEL_HELP, add_command, add_progress
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.models import check_runs, load_model

_DESCRIPTION = """\
Runs a model once and lists its attention layers: what AttentionGradient explains, and
the names for its argument layer (model.get_submodule(name)).
"""
_EPILOG = """\
examples:
  captum-attngrad layers --model minilm
  captum-attngrad layers --model ./my-bert --text "Two words."
"""
_TEXT = "A warm, funny and moving film."


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``layers`` command."""
    parser = add_command(
        commands, "layers", "list a model's attention layers", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--text",
        default=_TEXT,
        metavar="TEXT",
        help=f"the text that the model reads (default: {_TEXT!r})",
    )
    add_progress(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``layers`` command."""
    loaded = load_model(arguments.model, not arguments.no_progress)
    text_model = loaded.text_model
    try:
        batch = text_model.batch([arguments.text])
    except ValueError as error:
        raise UsageError(f"argument --text: {error}") from error
    check_runs(arguments.model, text_model, arguments.text)
    with text_model.evaluation_mode():
        if loaded.huggingface:
            found = find_attention_layers(
                text_model.model,
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask.long(),
                **batch.extras,
            )
        else:
            found = find_attention_layers(
                text_model.model, batch.input_ids, batch.attention_mask
            )
    print(found)
