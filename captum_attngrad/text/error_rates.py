"""How far transcriptions are from their references."""

from __future__ import annotations

from collections.abc import Sequence

Tokens = Sequence[str]


def edit_distance(hypothesis: Tokens, reference: Tokens) -> int:
    r"""
    Return the smallest number of insertions, deletions and substitutions of tokens that
    turns one sequence into the other (Levenshtein distance).

    Args:

        hypothesis (Sequence[str]): The tokens to judge, for example phonemes.
        reference (Sequence[str]): The right ones.

    Returns:
        int:
        - The distance; 0 if the sequences are equal.

    Examples::

        >>> edit_distance(["K", "AE", "T"], ["K", "AH", "T", "S"])
        2
    """
    above = list(range(len(reference) + 1))
    for i, token in enumerate(hypothesis, start=1):
        row = [i]
        for j, other in enumerate(reference, start=1):
            row.append(
                min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (token != other))
            )
        above = row
    return above[-1]


def phoneme_error_rate(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> float:
    r"""
    Return the edit distances between transcriptions and references, summed up, as a
    share of the phonemes of the references. Where a word has several references, the
    one with the smallest distance counts (the first of those).

    Args:

        hypotheses (Sequence[Sequence[str]]): One transcription for each word.
        references (Sequence[Sequence[Sequence[str]]]): For each word all its right
                    transcriptions.

    Returns:
        float:
        - The error rate: 0 if every transcription is right. It can exceed 1, since
          there is no limit to insertions.

    Raises:

        ValueError: If there are no words, not as many references as hypotheses, a word
                    without a reference, or references without any phoneme.

    Examples::

        >>> phoneme_error_rate([["K", "AE", "T"]], [[["K", "AH", "T"]]])
        0.3333333333333333
    """
    _check(hypotheses, references)
    edits, phonemes = 0, 0
    for hypothesis, right in zip(hypotheses, references, strict=True):
        distances = [edit_distance(hypothesis, reference) for reference in right]
        least = min(distances)
        edits += least
        phonemes += len(right[distances.index(least)])
    if phonemes == 0:
        raise ValueError("The references hold no phonemes to take a share of.")
    return edits / phonemes


def word_error_rate(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> float:
    r"""
    Return the share of the words whose transcription equals none of its references.

    Args:

        hypotheses (Sequence[Sequence[str]]): One transcription for each word.
        references (Sequence[Sequence[Sequence[str]]]): For each word all its right
                    transcriptions.

    Returns:
        float:
        - The error rate, from 0 to 1.

    Raises:

        ValueError: If there are no words, not as many references as hypotheses, or a
                    word without a reference.

    Examples::

        >>> word_error_rate([["K", "AE", "T"], ["S"]], [[["K", "AE", "T"]], [["Z"]]])
        0.5
    """
    _check(hypotheses, references)
    wrong = 0
    for hypothesis, right in zip(hypotheses, references, strict=True):
        wrong += list(hypothesis) not in [list(reference) for reference in right]
    return wrong / len(hypotheses)


def _check(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> None:
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(
            "An error rate needs as many hypotheses as references, and at least one: "
            f"got {len(hypotheses)} hypotheses and {len(references)} references."
        )
    for place, right in enumerate(references):
        if not right or isinstance(right, str) or isinstance(right[0], str):
            raise ValueError(
                "Each word needs a list of references, each a list of phonemes; word "
                f"{place} has {right!r:.80}. For one reference pass [reference]."
            )
