"""Texts as callers hand them in: strings, or pairs of strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: A text, or two that the model reads together, such as a premise and a hypothesis.
Text = str | tuple[str, str]


def lone_surrogate(text: str) -> str | None:
    """The first half of a surrogate pair that stands alone, as ``\\ud83d``, or None.

    It is not a character: neither files nor tokenizers take it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"\\u{ord(text[error.start]):04x}"
    return None


def check_texts(texts: Sequence[Any]) -> list[Text]:
    r"""
    Texts as a list of strings and pairs of strings.

    Args:
        texts (Sequence): Strings, or pairs (tuples or lists) of strings.

    Returns:
        *list of str or tuple*

    Raises:
        TypeError: If ``texts`` is one string, or an entry is neither a string nor a
            pair of them.
        ValueError: If a text holds half a surrogate pair, which is not a character.
    """
    if isinstance(texts, str):
        raise TypeError(
            f"texts is the string {texts!r:.80}; expected a list of texts: [text]."
        )
    return [_checked(text, place) for place, text in enumerate(texts)]


def _checked(text: Any, place: int) -> Text:
    parts = (text,) if isinstance(text, str) else text
    if (
        not isinstance(parts, (tuple, list))
        or len(parts) not in (1, 2)
        or (len(parts) == 1 and parts is text)
        or not all(isinstance(part, str) for part in parts)
    ):
        raise TypeError(
            f"texts[{place}] is {text!r:.80}; expected a string, or a pair of strings "
            "(first, second)."
        )
    for part in parts:
        half = lone_surrogate(part)
        if half is not None:
            raise ValueError(
                f"texts[{place}] holds {half}, half of a surrogate pair, which is not "
                f"a character: {part!r:.80}. Repair the text, or drop it with "
                "text.encode('utf-8', 'ignore').decode()."
            )
    return text if isinstance(text, str) else (parts[0], parts[1])


def single_texts(texts: Sequence[Text]) -> list[str]:
    """The texts, checked; a pair is an error."""
    found = []
    for place, text in enumerate(check_texts(texts)):
        if isinstance(text, tuple):
            raise ValueError(
                f"texts[{place}] is a pair, {text!r:.80}; a model of from_torch reads "
                "single texts. Join the two as the model expects them."
            )
        found.append(text)
    return found


def check_not_empty(texts: Sequence[Text], n_tokens: Sequence[int]) -> None:
    """Raises a ValueError if a text has no tokens."""
    for text, n in zip(texts, n_tokens, strict=True):
        if n == 0:
            raise ValueError(
                f"The text {text!r:.80} has no tokens, so there is nothing to explain; "
                "leave such texts out."
            )
