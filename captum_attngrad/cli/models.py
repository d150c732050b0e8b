r"""The models that ``--model`` names."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from captum_attngrad.cli.errors import UsageError
from captum_attngrad.models import finetuned_minilm, trained_lstm
from captum_attngrad.text import TextModel

#: Sentences on whose sentiment the raters largely agreed.
MIN_ABS_RATING = 1.0


class LoadedModel(NamedTuple):
    r"""
    A model with what the report says of it.

    Args:
        text_model (TextModel): The model.
        settings (dict): Lines for the report.
        huggingface (bool): Whether it takes its arguments by Hugging Face's names.
    """

    text_model: TextModel
    settings: dict[str, str]
    huggingface: bool


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
    if name == "lstm":
        return _lstm(show_progress)
    if name == "minilm":
        return _minilm(show_progress)
    return _local(name)


def _accuracy(share: float) -> dict[str, str]:
    return {"test accuracy of the model": f"{share:.1%} of the held-out sentences"}


def _lstm(show_progress: bool) -> LoadedModel:
    trained = trained_lstm(show_progress=show_progress, min_abs_rating=MIN_ABS_RATING)
    text_model = TextModel.from_torch(
        trained.model,
        trained.tokenizer,
        trained.vocab,
        embedding=trained.model.embedding,
        layer=trained.model.attention,
    )
    settings = {"removed tokens": "replaced by <unk>"}
    return LoadedModel(
        text_model, {**_accuracy(trained.test_accuracy), **settings}, False
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
        text_model, {**_accuracy(trained.test_accuracy), **settings}, True
    )


def _replacement(text_model: TextModel) -> dict[str, str]:
    (token,) = text_model.show_tokens([text_model.replacement_id])
    return {"removed tokens": f"replaced by {token}"}


def _local(name: str) -> LoadedModel:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"argument --model: {name!r} is neither lstm nor minilm, and there is no "
            "such folder"
        )
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"argument --model: {name!r} has no config.json, so it is not the folder "
            "of a Hugging Face model"
        )
    if find_spec("transformers") is None:
        raise ImportError(
            "A Hugging Face model needs transformers, which is not installed. Run: "
            "pip install 'captum-attngrad[huggingface]'"
        )
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    # It takes a moment, and errors are one line.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        architectures = json.loads((folder / "config.json").read_text("utf-8")).get(
            "architectures"
        )
        if architectures and "ForSequenceClassification" not in architectures[0]:
            # Loaded as a classifier it would get a head of random weights.
            raise ValueError(f"it is a {architectures[0]}, not a sequence classifier")
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True
        )
        text_model = TextModel.from_huggingface(model.eval(), tokenizer)
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UsageError(
            f"argument --model: {name!r} cannot be loaded: {line:.300}"
        ) from error
    return LoadedModel(text_model, _replacement(text_model), True)
