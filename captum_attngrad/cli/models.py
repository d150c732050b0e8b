r"""The models that ``--model`` names."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch

from captum_attngrad._extras import require
from captum_attngrad.cli.arguments import is_folder, user_path
from captum_attngrad.cli.errors import UsageError
from captum_attngrad.evaluation.explaining import reason
from captum_attngrad.models import finetuned_minilm, trained_lstm
from captum_attngrad.text import TextModel

#: Sentences on whose sentiment the raters largely agreed.
MIN_ABS_RATING = 1.0


class LoadedModel(NamedTuple):
    r"""
    A model, and what the report says about it.

    Args:
        text_model (TextModel): The model.
        settings (dict): Lines for the report.
        huggingface (bool): Whether it takes its arguments by Hugging Face's names.
        unknown_id (int, optional): The id of words that the tokenizer does not know.
    """

    text_model: TextModel
    settings: dict[str, str]
    huggingface: bool
    unknown_id: int | None


def load_model(name: str, show_progress: bool) -> LoadedModel:
    r"""
    Makes or loads a model.

    Args:
        name (str): "lstm", "minilm" or a folder.
        show_progress (bool): Whether training shows a progress bar.

    Returns:
        *LoadedModel*

    Raises:
        UsageError: If ``name`` is neither, or the folder holds no classifier.
        ImportError: If an extra is not installed.
    """
    trained = {"lstm": _lstm, "minilm": _minilm}
    if name not in trained:
        return _local(name)
    try:
        return trained[name](show_progress)
    except ValueError as error:  # a kept file is damaged; the message says which
        raise RuntimeError(str(error)) from error


def _accuracy(share: float) -> dict[str, str]:
    return {"test accuracy of the model": f"{share:.1%} of the held-out sentences"}


def _lstm(show_progress: bool) -> LoadedModel:
    trained = trained_lstm(show_progress=show_progress, min_abs_rating=MIN_ABS_RATING)
    text_model = TextModel.from_torch(
        trained.model,
        trained.tokenizer,
        trained.vocab,
        embedding=trained.model.embedding,
        attention_layers=trained.model.attention,
    )
    settings = {"removed tokens": "replaced by <unk>"}
    return LoadedModel(
        text_model,
        {**_accuracy(trained.test_accuracy), **settings},
        False,
        text_model.replacement_id,
    )


def _minilm(show_progress: bool) -> LoadedModel:
    trained = finetuned_minilm(
        show_progress=show_progress, min_abs_rating=MIN_ABS_RATING
    )
    text_model = TextModel.from_huggingface(
        trained.model, trained.tokenizer, class_names=("negative", "positive")
    )
    settings = _replacement(text_model)
    return LoadedModel(
        text_model,
        {**_accuracy(trained.test_accuracy), **settings},
        True,
        trained.tokenizer.unk_token_id,
    )


def _replacement(text_model: TextModel) -> dict[str, str]:
    (token,) = text_model.show_tokens([text_model.replacement_id])
    return {"removed tokens": f"replaced by {token}"}


def check_runs(name: str, text_model: TextModel, text: str) -> None:
    """Raises a UsageError if the model cannot be run on a text that it can read."""
    try:
        with warnings.catch_warnings():
            # Texts that are too long or wrong are reported where they are read.
            warnings.simplefilter("ignore", UserWarning)
            batch = text_model.batch([text])
    except ValueError:
        return
    try:
        with torch.no_grad(), text_model.evaluation_mode():
            p = text_model.probabilities(batch.input_ids, *batch.forward_args)
    except Exception as error:  # a model of the user's may do anything
        raise UsageError(
            f"argument --model: {name!r} cannot be run: {reason(error)}"
        ) from error
    if not bool(torch.isfinite(p).all()):
        raise UsageError(
            f"argument --model: {name!r} gives the probabilities {p[0].tolist()}; its "
            "weights are damaged"
        )


def check_known(argument: str, loaded: LoadedModel, texts: Sequence[str]) -> None:
    """Raises a UsageError if the tokenizer knows no word of any text."""
    for start in range(0, len(texts), 64):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            batch = loaded.text_model.encode(texts[start : start + 64])
        words = batch.input_ids[batch.attributable]
        if loaded.unknown_id is None or bool((words != loaded.unknown_id).any()):
            return
    raise UsageError(
        f"argument {argument}: the model's tokenizer knows none of the words, so that "
        "there is nothing to explain"
    )


def _local(name: str) -> LoadedModel:
    folder = user_path("--model", name)
    if not is_folder(folder):
        raise UsageError(
            f"argument --model: {name!r} is neither lstm nor minilm, and there is no "
            "such folder"
        )
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"argument --model: {name!r} has no config.json, so it is not the folder "
            "of a Hugging Face model"
        )
    require("transformers", "A Hugging Face model", "huggingface")
    from captum_attngrad.cli.huggingface import LoadingError, load_folder

    try:
        model, tokenizer = load_folder(folder)
        text_model = TextModel.from_huggingface(model, tokenizer)
    except (LoadingError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UsageError(
            f"argument --model: {name!r} cannot be loaded: {line:.400}"
        ) from error
    return LoadedModel(
        text_model, _replacement(text_model), True, tokenizer.unk_token_id
    )
