"""The arguments of ``compare``, checked before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captum_attngrad._classes import check_labels
from captum_attngrad.metrics.base import Metric
from captum_attngrad.text import TextModel
from captum_attngrad.text._texts import Text, check_texts


def checked_texts(texts: Sequence[Any]) -> list[Text]:
    """The texts as strings and pairs of strings, at least one."""
    found = check_texts(texts)
    if not found:
        raise ValueError("texts is empty; expected at least one text.")
    return found


def checked_labels(
    labels: Sequence[Any] | None, n_texts: int, text_model: TextModel
) -> list[int] | None:
    """A class for each text, or None."""
    if labels is None:
        return None
    if len(labels) != n_texts:
        raise ValueError(
            f"labels has {len(labels)} entries for {n_texts} texts; expected one "
            "label for each text, or None."
        )
    if not text_model.outputs.exclusive:
        raise ValueError(
            "labels gives one class for each text, and this is a multi-label model, "
            "where any number of labels can be right; leave labels out."
        )
    return check_labels("labels", labels, len(text_model.class_names))


def check_metrics(text_model: TextModel, metrics: tuple[Metric, ...]) -> None:
    """Raises a ValueError that names the metrics that do not suit the model."""
    names = [metric.name for metric in metrics if metric.needs_one_class]
    if names and not text_model.outputs.exclusive:
        raise ValueError(
            f"{', '.join(names)} ask whether the predicted class stays the same, and "
            "this is a multi-label model, which predicts each label on its own; leave "
            "them out of metrics."
        )
