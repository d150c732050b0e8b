r"""Token scores as the records and the table of Captum's ``visualize_text``."""

import html
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from captum.attr import visualization as viz
from torch import Tensor

from captum_attngrad._classes import check_labels
from captum_attngrad._extras import require
from captum_attngrad.text.word_pieces import merge_word_pieces
from captum_attngrad.visualization.words import relative_strengths


def _for_each(name: str, value: object, n: int) -> list[Any]:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * n
    if len(value) != n:
        raise ValueError(
            f"{name} has {len(value)} entries; expected one value for all, or one for "
            f"each of the {n} texts."
        )
    return list(value)


def _class_labels(name: str, labels: object, n: int) -> list[Any]:
    # Captum declares integers and shows whatever it is given.
    given = _for_each(name, labels, n)
    numbers = check_labels(name, [0 if isinstance(g, str) else g for g in given])
    return [
        html.escape(label) if isinstance(label, str) else number
        for label, number in zip(given, numbers, strict=True)
    ]


def _checked_row(tokens: Sequence[str], scores: Tensor, row: int) -> Tensor:
    if isinstance(tokens, str):
        raise TypeError(
            f"tokens[{row}] is the string {tokens!r:.80}; expected a list of tokens."
        )
    if scores.dim() != 1 or scores.shape[0] < len(tokens):
        raise ValueError(
            f"attributions[{row}] has shape {tuple(scores.shape)} for {len(tokens)} "
            "tokens; expected one score for each token (padding may follow)."
        )
    scores = scores[: len(tokens)].detach().to("cpu", torch.float64)
    bad = ~torch.isfinite(scores)
    if bool(bad.any()):
        position = int(bad.nonzero()[0])
        raise ValueError(
            f"attributions[{row}] has the score {float(scores[position])} at token "
            f"{position} ({tokens[position]!r}); scores must be finite."
        )
    return scores


def text_records(
    tokens: Sequence[Sequence[str]],
    attributions: Tensor | Sequence[Tensor],
    pred_prob: float | Sequence[float] | Tensor,
    pred_class: str | int | Sequence[str | int] | Tensor,
    true_class: str | int | Sequence[str | int] | Tensor,
    attr_class: str | int | Sequence[str | int] | Tensor,
    convergence_score: float | Sequence[float] | Tensor = 0.0,
    *,
    merge_pieces: bool = True,
    special_tokens: Collection[str] | None = None,
) -> list[viz.VisualizationDataRecord]:
    r"""
    Builds records for Captum's ``visualize_text`` and for :func:`save_html`.

    Captum's table clips scores to -1 and 1 and puts tokens into the page as they are.
    So the scores of each text are divided by the largest absolute score in it (the
    strongest word gets full color), and words and class names are HTML-escaped, which
    also keeps Captum from showing ``<unk>`` as ``#unk``. ``attr_score`` is the sum of
    the scores before they were divided.

    Two things have no color: special tokens such as ``[CLS]``, ``[SEP]`` and padding,
    and texts whose scores have vanished, that is, whose largest absolute score is below
    2**-24 (6e-08), the rounding error of a probability in single precision.

    Args:
        tokens (Sequence of Sequence of str): The tokens of each text, without padding.
        attributions (Tensor or Sequence of Tensor): Scores, shape (texts, tokens), or
            one 1D tensor for each text. Scores past the last token are left out.
        pred_prob (float, Sequence or Tensor): Predicted probability, for all texts or
            for each. The same holds for the arguments below.
        pred_class (str, int, Sequence or Tensor): Predicted class.
        true_class (str, int, Sequence or Tensor): True class.
        attr_class (str, int, Sequence or Tensor): Explained class, or another label
            that tells the rows apart.
        convergence_score (float, Sequence or Tensor, optional): Convergence delta.
            Default: 0.0
        merge_pieces (bool, optional): Whether word pieces are merged into words and
            their scores added, as :func:`merge_word_pieces` does.
            Default: True
        special_tokens (Collection of str, optional): Tokens without a color, never
            merged, such as ``tokenizer.all_special_tokens``.
            Default: None, the usual marks of starts, ends and padding, such as
            ``[CLS]``, ``</s>``, ``<pad>`` and ``<|endoftext|>``; not unknown words

    Returns:
        *list of VisualizationDataRecord*: One record for each text.

    Raises:
        ValueError: If a score is NaN or infinite, a class is neither a name nor a whole
            number of 0 or more, or the numbers of texts, tokens and scores do not
            agree.
        TypeError: If an entry of ``tokens`` is a string.

    Examples::

        >>> records = text_records(
        ...     [["a", "fine", "film"]], torch.tensor([[0.1, 0.8, 0.0]]),
        ...     pred_prob=0.9, pred_class="positive", true_class="positive",
        ...     attr_class="positive",
        ... )
        >>> captum.attr.visualization.visualize_text(records)
    """
    n = len(tokens)
    if len(attributions) != n:
        raise ValueError(
            f"attributions has {len(attributions)} rows for {n} texts; expected one "
            "row for each text."
        )
    columns = zip(
        _for_each("pred_prob", pred_prob, n),
        _class_labels("pred_class", pred_class, n),
        _class_labels("true_class", true_class, n),
        _class_labels("attr_class", attr_class, n),
        _for_each("convergence_score", convergence_score, n),
        strict=True,
    )
    rows = [_checked_row(tokens[i], attributions[i], i) for i in range(n)]
    if merge_pieces:
        tokens, rows = merge_word_pieces(tokens, rows, special_tokens=special_tokens)
    records: list[viz.VisualizationDataRecord] = []
    for row, (prob, predicted, true, explained, delta) in enumerate(columns):
        words, scores = list(tokens[row]), rows[row]
        record = _TextRecord(
            word_attributions=relative_strengths(words, scores, special_tokens)[0],
            pred_prob=float(prob),
            pred_class=predicted,
            true_class=true,
            attr_class=explained,
            attr_score=float(scores.sum()),
            raw_input_ids=[html.escape(word) for word in words],
            convergence_score=float(delta),
        )
        record.words, record.scores = words, scores
        records.append(record)
    return records


class _TextRecord(viz.VisualizationDataRecord):
    """A record of Captum's that remembers what :func:`save_html` shows beyond it."""

    words: list[str]
    scores: Tensor


def text_html(
    records: Iterable[viz.VisualizationDataRecord], legend: bool = False
) -> str:
    r"""
    The HTML of Captum's ``visualize_text``, without showing it anywhere.

    ``visualize_text`` itself also displays its table, which prints a line in a terminal
    and shows the table a second time in a notebook.

    Args:
        records (Iterable of VisualizationDataRecord): What to show, a row each; made by
            :func:`text_records`, so that scores and tokens are safe to show.
        legend (bool, optional): Whether Captum's color legend comes first.
            Default: False

    Returns:
        *str*: An HTML table, without a page around it (see :func:`save_html`).

    Raises:
        ImportError: If IPython, which Captum needs for this, is not installed.

    Examples::

        >>> save_html(text_html(records), "explained.html")
    """
    capture = require("IPython.utils.capture", "Captum's visualize_text", "compare")
    with capture.capture_output(stdout=True, stderr=False, display=True):
        shown = viz.visualize_text(records, legend=legend)
    return str(shown.data)
