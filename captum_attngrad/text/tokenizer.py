"""Splitting English text into words and punctuation marks."""

from __future__ import annotations

import re

# A word may hold apostrophes ("doesn't") and so stays one token; a run of one mark
# ("...", "!!", the '' that plain-text reviews use for a quotation mark) is one token.
_TOKEN = re.compile(r"\w+(?:'\w+)*|([^\w\s])\1*")


class WordTokenizer:
    r"""
    Splits text into words and punctuation marks: ``tokenizer(text) -> list[str]``,
    the call shape of torchtext's tokenizers.

    A word keeps its inner apostrophes (``doesn't`` is one token), a run of the same
    punctuation mark is one token, white space separates and is dropped. Nothing else
    is lost: the tokens joined together are the text without its white space. It is
    made for English and for languages that put spaces between words.

    Args:

        lowercase (bool, optional): Whether text is lower-cased first.
                    Default: True

    Examples::

        >>> WordTokenizer()("It's slow... but it isn't dull!")
        ["it's", 'slow', '...', 'but', 'it', "isn't", 'dull', '!']
    """

    def __init__(self, lowercase: bool = True) -> None:
        self.lowercase = lowercase

    def __call__(self, text: str) -> list[str]:
        r"""
        Args:

            text (str): The text to split.

        Returns:
            list[str]:
            - Its tokens in order; empty when the text holds only white space.

        Raises:

            TypeError: If ``text`` is not a string.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"The tokenizer takes one string, got {type(text).__name__}: "
                f"{text!r:.80}. Call it once for each text."
            )
        # Typographic apostrophes are common in typed text; a vocabulary should not
        # hold "don't" twice.
        text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        if self.lowercase:
            text = text.lower()
        return [match.group() for match in _TOKEN.finditer(text)]

    def __repr__(self) -> str:
        return f"WordTokenizer(lowercase={self.lowercase})"
