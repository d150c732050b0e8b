"""Run a model on changed inputs, and decide what this proves about its calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._interventions import Intervention, Together
from captum_attngrad.capture._layout.layout import Layout
from captum_attngrad.capture._proof.probe import (
    Change,
    Perturbation,
    Probe,
    Seen,
    changes,
    is_integer,
    only_change,
    oriented,
    other_ids,
    perturbed,
    whole_change,
)
from captum_attngrad.capture._proof.proof import (
    Evidence,
    NotProvedError,
    evidence,
    key_flags,
    key_status,
    proved_layout,
    same_keys,
)
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture._surroundings.writes import without_writes
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.keys import Keys, KeyStatus

# Runs the model on some arguments, with an intervention at its attention calls.
Run = Callable[[tuple[Any, ...], Intervention], None]
AtCalls = dict[int, Seen]


class ProofRuns:
    """One run without changes, some with, and what they prove about each call.

    In all of them attention is off; it is left on where nothing else leads to a call.
    """

    def __init__(
        self,
        run: Run,
        calls: Sequence[AttentionCall],
        inputs: tuple[Any, ...],
        others: tuple[Any, ...],
        graph: bool = False,
    ) -> None:
        self._graph = graph
        inputs, others = (tuple(map(oriented, each)) for each in (inputs, others))
        self._run, self._inputs, self._others = run, inputs, others
        self._random = False
        self._batch = len(inputs[0])
        self._sites = {call.site_index for call in calls}
        # Noise on embeddings harms nothing: token ids among the others get it too.
        embedded = [*inputs, *(o for o in others if _are_ids(o, self._batch))]
        self._embedded = embedded
        self._changes = changes(embedded, self._batch)
        self._used: set[int] = set()  # inputs of which embeddings were changed
        state = torch.get_rng_state()
        self._before = self._one(None, True)
        if not torch.equal(torch.get_rng_state(), state):
            # The model draws random numbers: let every run draw the same.
            torch.set_rng_state(state)
            self._random = True
            self._before = self._one(None, True)
        self._noise = self._runs(True)
        floats = {i for i, each in enumerate(inputs) if _has_numbers(each)}
        self._active = sorted(self._used | floats)
        self._ids = is_integer(inputs[0])
        self._whole: dict[int, AtCalls] = {}
        self._alone: dict[int, AtCalls] = {}
        self._exchanged: list[AtCalls] | None = None
        self._on: tuple[AtCalls, list[AtCalls]] | None = None
        self._groups: list[tuple[Tensor, tuple[int, ...]]] = []

    def of(self, call: AttentionCall) -> tuple[Layout, Keys]:
        """What is proved about one call.

        Raises:
            NotProvedError: with the reason.
        """
        found = self._evidence(call, self._before, self._noise)
        by_ids = not found.anything and self._ids
        if by_ids:
            # Embeddings of other ids than those given, as of shifted ones.
            found = self._by_ids(call) or found
            by_ids = found.anything
        shown = found
        if not found.anything:
            if self._on is None:
                self._on = self._one(None, False), self._runs(False)
            shown = self._evidence(call, *self._on)
        layout = proved_layout(shown, self._changes, self._batch)
        flags, apart = self._key_flags(call, found, layout, self._changes)
        sources = (0,) if by_ids else self._sources(call, layout, bool(flags.any()))
        status = KeyStatus.APART
        if not apart:
            status = self._status(call, layout, flags, sources, by_ids)
        merged = flags.any(dim=1)
        return layout, Keys(status, self._group(merged, sources), "proof run")

    def _evidence(
        self, call: AttentionCall, before: AtCalls, after: Sequence[AtCalls]
    ) -> Evidence:
        index = call.site_index
        if index not in before or any(index not in seen for seen in after):
            raise NotProvedError("the model does not always make this call")
        try:
            return evidence(call.tiles, before[index], [s[index] for s in after])
        except (RuntimeError, ValueError, IndexError) as error:
            raise NotProvedError(
                f"the model makes another call when it runs again ({error})"
            ) from error

    def _key_flags(
        self,
        call: AttentionCall,
        found: Evidence,
        layout: Layout,
        changes: Sequence[Change],
    ) -> tuple[Tensor, bool]:
        flags, apart = key_flags(found, layout, changes, self._batch)
        if isinstance(call, SoftmaxCall):
            # An attention sink is not among the keys.
            flags = flags[..., call.keys.start : call.keys.stop]
        return flags, apart

    # -- what keys stand for ----------------------------------------------------------

    def _sources(
        self, call: AttentionCall, layout: Layout, any_change: bool
    ) -> tuple[int, ...]:
        """The inputs that the keys depend on. If the keys are the tokens of one of
        several inputs, that one alone."""
        if len(self._active) < 2 or not any_change:
            return tuple(self._active) if any_change else ()
        found = tuple(
            i
            for i in self._active
            if bool(self._evidence(call, self._before, [self._all_of(i)]).values.any())
        )
        own = [i for i in found if len(found) > 1 and self._follows(call, layout, i)]
        return tuple(own) if len(own) == 1 else found

    def _follows(self, call: AttentionCall, layout: Layout, which: int) -> bool:
        """Whether the keys change where the tokens of one input do, and only there."""
        change = only_change(self._changes[0], which)
        expected = change.positions[which]
        if expected is None:
            return False
        if which not in self._alone:
            self._alone[which] = self._one(change, True)
        found = self._evidence(call, self._before, [self._alone[which]])
        flags, _ = self._key_flags(call, found, layout, [change])
        return torch.equal(flags[0], change.examples[:, None] & expected)

    def _status(
        self,
        call: AttentionCall,
        layout: Layout,
        flags: Tensor,
        sources: tuple[int, ...],
        by_ids: bool,
    ) -> KeyStatus:
        tokens = {i: self._changed_tokens(i, by_ids) for i in sources}
        sequences = {i: each for i, each in tokens.items() if each is not None}
        integers = any(is_integer(self._embedded[i]) for i in sources)
        every = [None] * len(sequences)
        status = key_status(flags, every, list(sequences.values()), integers)
        if status in (KeyStatus.TOKENS, KeyStatus.CONSTANT) or by_ids:
            return status
        alive = []
        for i in sequences:
            change = whole_change(self._embedded, self._batch, i)
            found = self._evidence(call, self._before, [self._all_of(i)])
            alive.append(self._key_flags(call, found, layout, [change])[0][0])
        return key_status(flags, alive, list(sequences.values()), integers)

    def _changed_tokens(self, which: int, by_ids: bool) -> Tensor | None:
        """``(runs, batch, length)``: the tokens of an input that a run changes."""
        each = self._embedded[which]
        if each.dim() > 3:
            return None
        if by_ids:
            return torch.stack([self._other_ids(c) != each for c in self._changes])
        marks = []
        for change in self._changes:
            positions = change.positions[which]
            if positions is None:
                return None
            marks.append(change.examples[:, None] & positions)
        return torch.stack(marks)

    def _group(self, flags: Tensor, sources: tuple[int, ...]) -> int:
        for i, (known, of_known) in enumerate(self._groups):
            if sources == of_known and same_keys(known, flags):
                return i
        self._groups.append((flags, sources))
        return len(self._groups) - 1

    # -- runs -------------------------------------------------------------------------

    def _runs(self, off: bool) -> list[AtCalls]:
        return [self._one(change, off) for change in self._changes]

    def _all_of(self, which: int) -> AtCalls:
        if which not in self._whole:
            change = whole_change(self._embedded, self._batch, which)
            self._whole[which] = self._one(change, True)
        return self._whole[which]

    def _by_ids(self, call: AttentionCall) -> Evidence | None:
        """The same evidence from other token ids instead of noise; None: the model
        refuses them."""
        if self._exchanged is None:
            try:
                self._exchanged = [self._one(c, True, ids=True) for c in self._changes]
            except Exception:  # some models refuse other ids
                self._exchanged = []
        if not self._exchanged:
            return None
        return self._evidence(call, self._before, self._exchanged)

    def _other_ids(self, change: Change) -> Tensor:
        ids: Tensor = self._inputs[0]
        positions = change.positions[0]
        return ids if positions is None else other_ids(ids, positions, change)

    def _one(self, change: Change | None, off: bool, ids: bool = False) -> AtCalls:
        # Copies, so that inputs with the same numbers can be told apart, and what the
        # model writes to (a cache) stays as it is.
        inputs = [i.clone() if is_integer(i) else i for i in self._inputs]
        others = [_copied(other) for other in self._others]
        embedded = [*inputs, *(o for o in others if _are_ids(o, self._batch))]
        if change is not None and ids:
            inputs[0] = self._other_ids(change)
        elif change is not None:
            inputs = [
                perturbed(each, positions, change)
                for each, positions in zip(inputs, change.positions, strict=False)
            ]
        probe = Probe(self._sites, off, self._changes)
        perturbation = Perturbation(embedded, None if ids else change)
        same = (
            _same_random_numbers(inputs) if self._random else contextlib.nullcontext()
        )
        with same, torch.set_grad_enabled(self._graph):
            self._run((*inputs, *others), Together(probe, perturbation))
        self._used |= perturbation.used
        return probe.seen


def _are_ids(value: Any, batch: int) -> bool:
    return is_integer(value) and value.dim() == 2 and len(value) == batch


def _has_numbers(value: Any) -> bool:
    floats = isinstance(value, Tensor) and value.is_floating_point()
    return floats and value.dim() > 1


def _copied(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.clone() if is_integer(argument) else argument
    return without_writes(argument)


@contextlib.contextmanager
def _same_random_numbers(inputs: Sequence[Any]) -> Iterator[None]:
    """Dropout and its like do the same in every run, and leave no trace."""
    devices = {i.device for i in inputs if isinstance(i, Tensor) and i.is_cuda}
    with torch.random.fork_rng(devices=[device.index for device in devices]):
        torch.manual_seed(0)
        yield
