r"""``captum-attngrad verify``: whether a model's explanations are exact."""

import argparse
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from captum_attngrad.cli.arguments import MODEL_HELP, add_command, add_progress
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.cli.models import LoadedModel, check_runs, load_model
from captum_attngrad.text import TextBatch
from captum_attngrad.verification import Verification, verify

_DESCRIPTION = """\
Checks that a model's attention is captured and its attention gradient exact: how the
layout of each layer's attention weights is known, whether its keys are the tokens, and
how far its gradient is from a finite difference. The exit status is 1 if it is not
exact.
"""
_EPILOG = """\
examples:
  captum-attngrad verify --model minilm
  captum-attngrad verify --model ./my-bert --text "Two words." --text "And some more."
"""
_TEXTS = ("A warm, funny and moving film.", "Dull from the start.")


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Adds the ``verify`` command."""
    parser = add_command(
        commands, "verify", "prove that explanations are exact", _DESCRIPTION, _EPILOG
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--text",
        action="append",
        metavar="TEXT",
        help="a text that the model reads; may be given several times "
        f"(default: {_TEXTS[0]!r} and {_TEXTS[1]!r})",
    )
    add_progress(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Runs the ``verify`` command."""
    loaded = load_model(arguments.model, not arguments.no_progress)
    texts = arguments.text or list(_TEXTS)
    try:
        batch = loaded.text_model.batch(texts)
    except ValueError as error:
        raise UsageError(f"argument --text: {error}") from error
    check_runs(arguments.model, loaded.text_model, texts[0])
    with loaded.text_model.evaluation_mode():
        found = _verified(loaded, batch)
    print(found)
    if not found:
        raise SystemExit(1)


def _verified(loaded: LoadedModel, batch: TextBatch) -> Verification:
    model = loaded.text_model.model
    if not loaded.huggingface:
        mask = batch.attention_mask
        return verify(model, batch.input_ids, additional_forward_args=mask)
    named = {"attention_mask": batch.attention_mask.long(), **batch.extras}
    found = verify(
        _ByName(model, tuple(named)),
        batch.input_ids,
        additional_forward_args=tuple(named.values()),
    )
    layers = (replace(x, name=x.name.removeprefix("model.")) for x in found.layers)
    lost = ((name.removeprefix("model."), step) for name, step in found.lost)
    return replace(found, layers=tuple(layers), lost=tuple(lost))


class _ByName(nn.Module):
    """A Hugging Face model that is called with tensors in a fixed order."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, input_ids: Tensor, *others: Tensor) -> Any:
        named = dict(zip(self.names, others, strict=True))
        return self.model(input_ids=input_ids, **named)
