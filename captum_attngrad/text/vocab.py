"""Tokens to ids and back, with the names and behavior of torchtext's ``Vocab``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


class Vocab:
    r"""
    A two-way mapping between tokens and ids, which are ``0 ... len(vocab) - 1``.

    It has the methods of ``torchtext.vocab.Vocab`` and behaves as that class does, so
    that either can be used wherever this library asks for a vocabulary.

    Args:

        tokens (Sequence[str]): The tokens; the position of a token is its id.
        default_index (int, optional): The id of every token that is not in the
                    vocabulary. With None, asking for such a token is an error.
                    Default: None

    Raises:

        RuntimeError: If a token occurs twice.

    Examples::

        >>> vocab = Vocab(["<unk>", "good", "bad"], default_index=0)
        >>> vocab(["good", "film"])
        [1, 0]
        >>> vocab.lookup_tokens([2, 1])
        ['bad', 'good']
    """

    def __init__(self, tokens: Sequence[str], default_index: int | None = None) -> None:
        _check_tokens(tokens)
        self._itos: list[str] = list(tokens)
        self._stoi: dict[str, int] = {t: i for i, t in enumerate(self._itos)}
        if len(self._stoi) < len(self._itos):
            twice = [t for t, n in Counter(self._itos).items() if n > 1]
            raise RuntimeError(
                f"Each token must occur once; these occur more often: {twice[:5]}."
            )
        self._default_index = default_index

    def __call__(self, tokens: Sequence[str]) -> list[int]:
        r"""Return the ids of ``tokens``; the same as :meth:`lookup_indices`."""
        return self.lookup_indices(tokens)

    def forward(self, tokens: Sequence[str]) -> list[int]:
        r"""Return the ids of ``tokens``; the same as :meth:`lookup_indices`."""
        return self.lookup_indices(tokens)

    def __len__(self) -> int:
        return len(self._itos)

    def __contains__(self, token: object) -> bool:
        return token in self._stoi

    def __getitem__(self, token: str) -> int:
        r"""
        Return the id of ``token``, or the default index for an unknown one.

        Raises:

            RuntimeError: If the token is unknown and no default index is set.
        """
        index = self._stoi.get(token, self._default_index)
        if index is None:
            raise RuntimeError(
                f"Token {token!r} is not in the vocabulary and no default index is "
                "set. Call vocab.set_default_index(vocab['<unk>']), or the id of "
                "whichever token stands for unknown ones."
            )
        return index

    def set_default_index(self, index: int | None) -> None:
        r"""Set the id of unknown tokens; None makes unknown tokens an error."""
        self._default_index = index

    def get_default_index(self) -> int | None:
        r"""Return the id of unknown tokens, or None where none is set."""
        return self._default_index

    def lookup_indices(self, tokens: Sequence[str]) -> list[int]:
        r"""
        Args:

            tokens (Sequence[str]): The tokens to look up.

        Returns:
            list[int]:
            - Their ids, in order.

        Raises:

            RuntimeError: If a token is unknown and no default index is set.
            TypeError: If ``tokens`` is one string and not a sequence of them.
        """
        _check_tokens(tokens)
        return [self[token] for token in tokens]

    def lookup_token(self, index: int) -> str:
        r"""
        Return the token with id ``index``.

        Raises:

            RuntimeError: If no token has this id.
        """
        if not 0 <= index < len(self._itos):
            raise RuntimeError(
                f"No token has the id {index}: this vocabulary's ids are 0 to "
                f"{len(self._itos) - 1}."
            )
        return self._itos[index]

    def lookup_tokens(self, indices: Iterable[int]) -> list[str]:
        r"""
        Return the tokens with these ids, in order.

        Raises:

            RuntimeError: If no token has one of these ids.
        """
        return [self.lookup_token(index) for index in indices]

    def insert_token(self, token: str, index: int) -> None:
        r"""
        Give ``token`` the id ``index``; the ids from there on move up by one. The
        default index stays as it is.

        Raises:

            RuntimeError: If the token is known or ``index`` is not in
                        ``0 ... len(vocab)``.
        """
        if token in self._stoi:
            raise RuntimeError(
                f"Token {token!r} is already in the vocabulary, with the id "
                f"{self._stoi[token]}."
            )
        if not 0 <= index <= len(self._itos):
            raise RuntimeError(
                f"Cannot insert {token!r} at {index}: this vocabulary has room at 0 "
                f"to {len(self._itos)}."
            )
        self._itos.insert(index, token)
        for position in range(index, len(self._itos)):
            self._stoi[self._itos[position]] = position

    def append_token(self, token: str) -> None:
        r"""
        Add ``token`` at the end.

        Raises:

            RuntimeError: If the token is known.
        """
        self.insert_token(token, len(self._itos))

    def get_itos(self) -> list[str]:
        r"""Return the list of all tokens; the position of a token is its id."""
        return list(self._itos)

    def get_stoi(self) -> dict[str, int]:
        r"""Return the mapping from every token to its id."""
        return dict(self._stoi)

    def __repr__(self) -> str:
        return f"Vocab({len(self)} tokens, default_index={self._default_index})"


def build_vocab_from_iterator(
    iterator: Iterable[Iterable[str]],
    min_freq: int = 1,
    specials: Sequence[str] | None = None,
    special_first: bool = True,
    max_tokens: int | None = None,
) -> Vocab:
    r"""
    Count tokens and build a vocabulary, most frequent token first, tokens of the same
    frequency in alphabetical order. Arguments and result are those of
    ``torchtext.vocab.build_vocab_from_iterator``.

    Args:

        iterator (Iterable[Iterable[str]]): Tokenized texts.
        min_freq (int, optional): How often a token must occur to be included.
                    Default: 1
        specials (Sequence[str], optional): Tokens that are always included, such as
                    ``"<pad>"`` and ``"<unk>"``, in this order.
                    Default: None
        special_first (bool, optional): Whether ``specials`` come before all other
                    tokens (True) or after them (False).
                    Default: True
        max_tokens (int, optional): The largest size of the vocabulary, ``specials``
                    included.
                    Default: None

    Returns:
        Vocab:
        - The vocabulary. No default index is set.

    Raises:

        ValueError: If ``max_tokens`` leaves no room beside ``specials``.
        TypeError: If ``iterator`` yields strings and not lists of tokens.

    Examples::

        >>> lines = ["a good film", "a bad film"]
        >>> vocab = build_vocab_from_iterator(
        ...     (line.split() for line in lines), specials=["<unk>"]
        ... )
        >>> vocab.set_default_index(vocab["<unk>"])
        >>> vocab.get_itos()
        ['<unk>', 'a', 'film', 'bad', 'good']
    """
    special_tokens = list(specials or [])
    counts: Counter[str] = Counter()
    for tokens in iterator:
        _check_tokens(tokens)
        counts.update(tokens)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if max_tokens is not None:
        if max_tokens <= len(special_tokens):
            raise ValueError(
                f"max_tokens={max_tokens} leaves no room beside the "
                f"{len(special_tokens)} specials. Make it larger than that."
            )
        ordered = ordered[: max_tokens - len(special_tokens)]
    words = [
        token
        for token, count in ordered
        if count >= min_freq and token not in special_tokens
    ]
    return Vocab(special_tokens + words if special_first else words + special_tokens)


def _check_tokens(tokens: Iterable[str]) -> None:
    # A string is a sequence of strings, so it would silently be taken letter by letter.
    if isinstance(tokens, str):
        raise TypeError(
            f"Expected a list of tokens, got the string {tokens!r:.80}. Split it with "
            "a tokenizer first: vocab(tokenizer(text))."
        )
