r"""Word pieces merged into words."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor

from captum_attngrad._scores import as_array

PieceScheme = Literal["wordpiece", "sentencepiece", "byte-level"]

_SPACE = "▁"
_SPECIAL = re.compile(r"\[[A-Z]+\d*\]|<\|.+\|>|</?[A-Za-z_]\w*>")
_BYTES = re.compile(r"(<0x[0-9A-F]{2}>)+")
# The mark of a space before a word, and what else ends one: line feeds, tabs, returns.
_SPACES: dict[PieceScheme | None, tuple[str, tuple[str, ...]]] = {
    "sentencepiece": (_SPACE, ("\n", "\t", "\r", "<0x0A>", "<0x09>", "<0x0D>")),
    "byte-level": ("Ġ", ("Ċ", "ĉ", "č")),
}


@overload
# A string is a sequence of strings too, but is refused.
def merge_word_pieces(  # type: ignore[overload-overlap]
    tokens: Sequence[str],
    scores: Tensor | Sequence[float],
    *,
    scheme: PieceScheme | None = None,
    special_tokens: Collection[str] | None = None,
) -> tuple[list[str], Tensor]: ...
@overload
def merge_word_pieces(
    tokens: Sequence[Sequence[str]],
    scores: Tensor | Sequence[Any],
    *,
    scheme: PieceScheme | None = None,
    special_tokens: Collection[str] | None = None,
) -> tuple[list[list[str]], list[Tensor]]: ...
def merge_word_pieces(
    tokens: Sequence[str] | Sequence[Sequence[str]],
    scores: Tensor | Sequence[Any],
    *,
    scheme: PieceScheme | None = None,
    special_tokens: Collection[str] | None = None,
) -> tuple[list[str], Tensor] | tuple[list[list[str]], list[Tensor]]:
    r"""
    Merges word pieces into words, and adds the scores of the pieces of each word.

    Three ways of marking pieces are known: WordPiece (BERT: ``##`` before a piece that
    goes on), SentencePiece (T5, ALBERT, Llama 2: ``▁`` before one that starts a word)
    and byte-level pairs (GPT-2, RoBERTa, Llama 3: ``Ġ`` before one that starts a word).
    The last two mark spaces only, so a word keeps the punctuation next to it; bytes
    become the characters that they encode. Special tokens stay as they are.

    Args:
        tokens (Sequence of str, or Sequence of Sequence of str): The pieces of one
            text, or of each text of a batch, as ``tokenizer.convert_ids_to_tokens``
            or a ``TextBatch`` has them.
        scores (Tensor, array or list): For one text, shape (..., tokens): the last
            dimension is summed, so the inputs of a map (outputs, inputs) can be merged
            too. For a batch, one row for each text. Scores of padding after the last
            token are left out.
        scheme (str, optional): ``"wordpiece"``, ``"sentencepiece"`` or
            ``"byte-level"``.
            Default: None, told from the marks in ``tokens``; where there are none,
            every token is a word
        special_tokens (Collection of str, optional): What is never merged, such as
            ``tokenizer.all_special_tokens``.
            Default: None, what looks like ``[CLS]``, ``<s>``, ``</s>`` or
            ``<|endoftext|>``

    Returns:
        *tuple* of **words** and **scores**:
        - **words** (*list of str*, for a batch *list of list of str*)
        - **scores** (*Tensor*, for a batch *list of Tensor*): shape (..., words).
          Tensors of floats keep dtype, device and gradient; anything else becomes
          float64.

    Raises:
        ValueError: If ``scheme`` is unknown or there are fewer scores than tokens.
        TypeError: If scores are not real numbers.

    Examples::

        >>> merge_word_pieces(["un", "##watch", "##able", "."], [1.0, 2.0, -0.5, 0.0])
        (['unwatchable', '.'], tensor([2.5000, 0.0000], dtype=torch.float64))
        >>> # Words in place of pieces below a map (outputs, inputs).
        >>> words, scores = merge_word_pieces(pieces, scores)
        >>> plot_alignment(output_tokens, words, scores)
    """
    if isinstance(tokens, str):
        raise TypeError(
            f"tokens is the string {tokens!r:.80}; expected a list of tokens."
        )
    single = not tokens or isinstance(tokens[0], str)
    texts = cast("list[Sequence[str]]", [tokens] if single else list(tokens))
    rows = [scores] if single else scores
    if len(rows) != len(texts):
        raise ValueError(
            f"scores has {len(rows)} rows for {len(texts)} texts; expected one for "
            "each."
        )
    if scheme is None:
        scheme = _scheme_of([token for text in texts for token in text], special_tokens)
    elif scheme not in ("wordpiece", "sentencepiece", "byte-level"):
        raise ValueError(
            f"scheme={scheme!r} is unknown: it is 'wordpiece', 'sentencepiece', "
            "'byte-level' or None (told from the tokens)."
        )
    words, sums = [], []
    for row, text in enumerate(texts):
        starts = word_starts(text, special_tokens, scheme)
        words.append(
            [
                text[i]
                if _is_special(text[i], special_tokens)
                else _word(text[i:end], scheme)
                for i, end in pairwise([*starts, len(text)])
            ]
        )
        where = "scores" if single else f"scores[{row}]"
        sums.append(_summed(where, rows[row], starts, len(text)))
    return (words[0], sums[0]) if single else (words, sums)


def _scheme_of(
    tokens: Sequence[str], special_tokens: Collection[str] | None
) -> PieceScheme | None:
    pieces = [token for token in tokens if not _is_special(token, special_tokens)]
    if any(token.startswith(_SPACE) for token in pieces):
        return "sentencepiece"
    if any(token.startswith(("Ġ", "Ċ")) for token in pieces):
        return "byte-level"
    if any(_goes_on(token) for token in pieces):
        return "wordpiece"
    return None


def _is_special(token: str, special_tokens: Collection[str] | None) -> bool:
    if special_tokens is not None:
        return token in special_tokens
    return _SPECIAL.fullmatch(token) is not None


def _goes_on(token: str) -> bool:
    return token.startswith("##") and len(token) > 2


def word_starts(
    tokens: Sequence[str],
    special_tokens: Collection[str] | None,
    scheme: PieceScheme | None = None,
) -> list[int]:
    """Where words begin; the scheme is told from the tokens unless it is given."""
    if scheme is None:
        scheme = _scheme_of(tokens, special_tokens)
    special = [_is_special(token, special_tokens) for token in tokens]
    space, breaks = _SPACES.get(scheme, ("", ()))
    starts = []
    for i, token in enumerate(tokens):
        if i == 0 or special[i] or special[i - 1] or scheme is None:
            begins = True
        elif scheme == "wordpiece":
            begins = not _goes_on(token)
        else:
            begins = token.startswith((space, *breaks)) or tokens[i - 1].endswith(
                breaks
            )
        if begins:
            starts.append(i)
    return starts


def _word(pieces: Sequence[str], scheme: PieceScheme | None) -> str:
    joined = "".join(pieces)
    if scheme == "wordpiece":
        return pieces[0] + "".join(piece[2:] for piece in pieces[1:])
    if scheme == "sentencepiece":
        text = _BYTES.sub(_decoded_bytes, joined).replace(_SPACE, " ")
    elif scheme == "byte-level":
        text = _decoded_characters(joined)
    else:
        return joined
    # A piece of nothing but spaces is shown as it is.
    return text.strip() or joined


def _decoded_bytes(match: re.Match[str]) -> str:
    numbers = re.findall("<0x(..)>", match.group())
    return bytes(int(number, 16) for number in numbers).decode(errors="replace")


def _decoded_characters(text: str) -> str:
    bytes_of = _bytes_of_characters()
    encoded = b"".join(bytes_of.get(c) or c.encode() for c in text)
    return encoded.decode(errors="replace")


@cache
def _bytes_of_characters() -> dict[str, bytes]:
    """Byte-level vocabularies write a byte as its Latin-1 character where that can be
    seen, and the others, in order, as the characters from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    characters = {chr(byte): byte for byte in visible}
    characters.update({chr(0x100 + i): byte for i, byte in enumerate(hidden)})
    return {character: bytes([byte]) for character, byte in characters.items()}


def _summed(name: str, scores: object, starts: list[int], n_tokens: int) -> Tensor:
    """Sums the last dimension from each start up to the next."""
    if not (isinstance(scores, Tensor) and scores.is_floating_point()):
        scores = torch.from_numpy(as_array(scores))
    if scores.dim() == 0 or scores.shape[-1] < n_tokens:
        raise ValueError(
            f"{name} has shape {tuple(scores.shape)} for {n_tokens} tokens; expected "
            "one score for each in the last dimension (scores of padding may follow)."
        )
    lengths = torch.tensor([*starts, n_tokens]).diff()
    words = torch.arange(len(starts)).repeat_interleave(lengths)
    sums = scores.new_zeros(*scores.shape[:-1], len(starts))
    return sums.index_add(-1, words.to(scores.device), scores[..., :n_tokens])
