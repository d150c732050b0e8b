r"""The explained texts of a comparison, read when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from captum_attngrad.evaluation.store import Arrays, Store, from_text_array


@dataclass(frozen=True)
class ExplainedText:
    r"""
    One text, what the model said about it and what each method said about that.

    Args:
        tokens (tuple of str): Its tokens.
        predicted (int): The predicted class, which is the explained one.
        probability (float): The predicted class's probability.
        label (int, optional): True class; None if it was not given.
        scores (Mapping): Method name to the scores of the tokens, shape (tokens,); 0
            for tokens that are not attributable. Methods that failed are left out.
    """

    tokens: tuple[str, ...]
    predicted: int
    probability: float
    label: int | None
    scores: Mapping[str, npt.NDArray[np.float64]]


class StoredTexts(Sequence[ExplainedText]):
    r"""
    Texts in the caller's order, of which one batch at a time is in memory.

    Args:
        store (Store): Where the parts are.
        numbers (ndarray): For each text its batch and its row there, (texts, 2).
        methods (tuple of str): Names of the methods, in the order of their numbers.
        failed (set of str): Those that failed.
        labels (Sequence of int, optional): True classes.
    """

    def __init__(
        self,
        store: Store,
        numbers: npt.NDArray[np.int64],
        methods: tuple[str, ...],
        failed: set[str],
        labels: Sequence[int] | None,
    ) -> None:
        self._store = store
        self._numbers = numbers
        self._methods = methods
        self._failed = failed
        self._labels = labels
        self._batch = -1
        self._parts: dict[str, Arrays] = {}
        self._tokens: list[list[str]] = []

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> ExplainedText: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[ExplainedText, ...]: ...
    def __getitem__(
        self, place: int | slice
    ) -> ExplainedText | tuple[ExplainedText, ...]:
        if isinstance(place, slice):
            return tuple(self[i] for i in range(*place.indices(len(self))))
        batch, row = (int(i) for i in self._numbers[place])
        self._load(batch)
        tokens = tuple(self._tokens[row])
        return ExplainedText(
            tokens=tokens,
            predicted=int(self._parts[""]["target"][row]),
            probability=float(self._parts[""]["probability"][row]),
            label=None if self._labels is None else int(self._labels[place]),
            scores={
                name: self._parts[name]["scores"][row, : len(tokens)].astype(np.float64)
                for name in self._methods
                if name not in self._failed
            },
        )

    def __iter__(self) -> Iterator[ExplainedText]:
        return (self[place] for place in range(len(self)))

    def by_batch(self) -> Iterator[tuple[int, ExplainedText]]:
        """Place and text, batch by batch, so that each part is read once."""
        for place in np.lexsort(self._numbers.T[::-1]).tolist():
            yield place, self[place]

    def _load(self, batch: int) -> None:
        if batch == self._batch:
            return
        names = {"": (batch, "texts")} | {
            name: (batch, index, "scores")
            for index, name in enumerate(self._methods)
            if name not in self._failed
        }
        parts = {}
        for name, key in names.items():
            part = self._store.get(key)
            if part is None:
                damaged = "; ".join(
                    f"{n} ({w})" for n, w in self._store.damaged.items()
                )
                why = f"are damaged: {damaged}" if damaged else "are no longer there"
                raise RuntimeError(
                    f"Parts of this comparison in its output folder {why}. Run the "
                    "comparison again: what is missing is made anew."
                )
            parts[name] = part
        self._parts = parts
        self._tokens = from_text_array(parts[""]["tokens"])
        self._batch = batch
