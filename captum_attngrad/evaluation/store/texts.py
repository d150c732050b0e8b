r"""The explained texts of a comparison, read on demand."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from captum_attngrad.evaluation.results.texts import ExplainedText
from captum_attngrad.evaluation.store.arrays import Arrays, from_text_array
from captum_attngrad.evaluation.store.stores import Store


class StoredTexts(Sequence[ExplainedText]):
    r"""
    Texts in the caller's order, of which one batch at a time is in memory.

    Args:
        store (Store): Holds the parts.
        numbers (ndarray): For each text its batch and its row there, (texts, 2).
        methods (tuple of str): Names of the methods, in the order of their numbers.
        failed (set of str): Names of those that failed.
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
    def __getitem__(self, position: int) -> ExplainedText: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[ExplainedText, ...]: ...
    def __getitem__(
        self, position: int | slice
    ) -> ExplainedText | tuple[ExplainedText, ...]:
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        batch, row = (int(i) for i in self._numbers[position])
        self._load(batch)
        tokens = tuple(self._tokens[row])
        return ExplainedText(
            tokens=tokens,
            predicted=int(self._parts[""]["target"][row]),
            probability=float(self._parts[""]["probability"][row]),
            label=None if self._labels is None else int(self._labels[position]),
            scores={
                name: self._parts[name]["scores"][row, : len(tokens)].astype(np.float64)
                for name in self._methods
                if name not in self._failed
            },
        )

    def __iter__(self) -> Iterator[ExplainedText]:
        return (self[position] for position in range(len(self)))

    def by_batch(self) -> Iterator[tuple[int, ExplainedText]]:
        """Position and text, batch by batch, so that each part is read once."""
        for position in np.lexsort(self._numbers.T[::-1]).tolist():
            yield position, self[position]

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
                    "comparison again to recompute what is missing."
                )
            parts[name] = part
        self._parts = parts
        self._tokens = from_text_array(parts[""]["tokens"])
        self._batch = batch
