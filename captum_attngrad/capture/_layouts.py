"""Find out the layout of recorded calls: once for a model, then from memory."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_attngrad.capture._axes import axes_of
from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture._layout import ExampleDimension, Layout, only_layout
from captum_attngrad.capture._probe import (
    Change,
    Perturbation,
    Probe,
    Seen,
    changes,
    is_integer,
    oriented,
    other_ids,
    perturbed,
)
from captum_attngrad.capture._proof import (
    NotProvedError,
    RefutedError,
    evidence,
    key_flags,
    key_status,
    proved_layout,
    same_keys,
)
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture._weighing import Role, Tile
from captum_attngrad.capture.calls import AttentionCall, FusedCall
from captum_attngrad.capture.keys import Keys, KeyStatus

# Runs the model on some arguments, with an intervention at its attention calls.
Run = Callable[[tuple[Any, ...], Intervention], None]


@dataclass(frozen=True)
class Verdict:
    """What is known of one call."""

    layout: Layout
    keys: Keys
    lead: tuple[int, ...]  # sizes of the layout's leading tiles
    batch: int
    tiles: int

    def of_replica(self, call: AttentionCall) -> tuple[Layout, int]:
        """The layout and the number of examples of a call that has some of them."""
        layout = self.layout
        if layout.examples is None:
            return layout, 1
        if len(call.tiles) < self.tiles:
            return layout.without_examples(), 1
        folded = self.lead[layout.lead.index(layout.examples)] // max(self.batch, 1)
        return layout, call.tiles[layout.examples].size // max(folded, 1)

    def fits(self, call: AttentionCall, batch: int) -> bool:
        """Whether a call of another forward pass is laid out alike."""
        tiles = call.tiles
        if len(tiles) != self.tiles:
            return False
        for i, size in zip(self.layout.lead, self.lead, strict=True):
            if i == self.layout.examples:
                if tiles[i].size * self.batch != size * batch:
                    return False
            elif tiles[i].size != size:
                return False
        return True


class Memory:
    """The verdicts on each model, for as long as it exists."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, dict[Any, list[list[Verdict]]]] = (
            weakref.WeakKeyDictionary()
        )

    def recall(
        self, owner: Any, key: Any, calls: Sequence[AttentionCall], batch: int
    ) -> list[Verdict] | None:
        for verdicts in self._of(owner).get(key, ()):
            if all(v.fits(c, batch) for v, c in zip(verdicts, calls, strict=True)):
                return verdicts
        return None

    def keep(self, owner: Any, key: Any, verdicts: list[Verdict]) -> None:
        self._of(owner).setdefault(key, []).append(verdicts)

    def _of(self, owner: Any) -> dict[Any, list[list[Verdict]]]:
        try:
            return self._known.setdefault(owner, {})
        except TypeError:  # cannot be referenced weakly
            return {}


memory = Memory()


def layouts_of(
    calls: Sequence[AttentionCall],
    owner: Any,
    run: Run | None,
    inputs: tuple[Any, ...],
    others: tuple[Any, ...] = (),
    batch: int | None = None,
    conventional: bool = False,
) -> list[Verdict]:
    """The layout of each call of one forward pass.

    Args:
        calls (sequence of AttentionCall): as recorded, not yet arranged.
        owner: what the verdicts are remembered for: the model, or the function.
        run (Callable, optional): runs the model again. None: it cannot be run.
        inputs (tuple): what may be changed in such a run, batch first.
        others (tuple): further arguments.
        batch (int, optional): number of examples.
            Default: the first dimension of the first input
        conventional (bool): take the first dimension of fused calls for the examples
            where nothing is proved.

    Raises:
        ValueError: a layout can neither be proved nor does it follow from the sizes.
    """
    batch = len(inputs[0]) if batch is None else batch
    key = tuple(_signature(call, inputs) for call in calls), batch > 1
    known = memory.recall(owner, key, calls, batch)
    if known is None:
        known = _find(calls, batch, run, inputs, others, conventional)
        memory.keep(owner, key, known)
    return known


def _signature(call: AttentionCall, inputs: tuple[Any, ...]) -> Any:
    return (
        call.layer,
        call.place,
        tuple(tile.role for tile in call.tiles),
        tuple(
            (i.dim(), i.dtype, i.dim() > 1 and i.shape[1] == call.tiles[-1].size)
            for i in inputs
            if isinstance(i, Tensor)
        ),
    )


def _find(
    calls: Sequence[AttentionCall],
    batch: int,
    run: Run | None,
    inputs: tuple[Any, ...],
    others: tuple[Any, ...],
    conventional: bool,
) -> list[Verdict]:
    reason = "the model cannot be run again"
    proof = None
    usable = bool(inputs) and len(inputs[0]) == batch > 0
    if run is not None and usable and all(_not_empty(call.tiles) for call in calls):
        try:
            proof = _Proof(run, calls, inputs, others)
        except (
            NotProvedError,
            RefutedError,
            RuntimeError,
            ValueError,
            TypeError,
            IndexError,
        ) as error:
            reason = str(error)
    flags: list[Tensor] = []  # of the first call of each group of keys
    verdicts: list[Verdict] = []
    for call in calls:
        layout, keys, refuted = None, Keys(), False
        if proof is not None:
            try:
                layout, keys = proof.of(call, flags)
            except NotProvedError as error:
                reason = str(error)
                refuted = isinstance(error, RefutedError)
        if layout is None and not refuted:
            layout = only_layout(call.tiles, batch)
            keys = Keys(proved_by="one example" if batch == 1 else "sizes")
        if layout is None:
            layout, keys = _as_before(call, calls, verdicts, batch)
        if layout is None and conventional and call.tiles[0].stride == 0:
            lead = tuple(range(len(call.tiles) - 2))
            layout = Layout(
                lead, 0 if lead else None, False, (len(lead),), len(lead) + 1
            )
            batch_of_call = call.tiles[0].size if lead else 1
            keys = Keys(proved_by="convention of scaled_dot_product_attention")
            verdicts.append(_verdict(call, layout, keys, batch_of_call))
            continue
        if layout is None:
            raise ValueError(
                _UNKNOWN.format(call.layer, _described(call), batch, reason)
            )
        verdicts.append(_verdict(call, layout, keys, batch))
    return verdicts


def _verdict(call: AttentionCall, layout: Layout, keys: Keys, batch: int) -> Verdict:
    lead = tuple(call.tiles[i].size for i in layout.lead)
    return Verdict(layout, keys, lead, batch, len(call.tiles))


def _as_before(
    call: AttentionCall,
    calls: Sequence[AttentionCall],
    verdicts: list[Verdict],
    batch: int,
) -> tuple[Layout | None, Keys]:
    """What was found for an earlier call of the same layer, as in a loop."""
    roles = [tile.role for tile in call.tiles]
    for other, verdict in zip(calls, verdicts, strict=False):
        same = other.layer == call.layer and [t.role for t in other.tiles] == roles
        if same and verdict.fits(call, batch):
            return verdict.layout, verdict.keys
    return None, Keys()


_UNKNOWN = (
    "The attention weights of layer {!r} are laid out as {}, and it could not be "
    "proved which of their entries belong to which of the {} examples: {}. Explain one "
    "example at a time, or pass other layers as layer."
)


def _described(call: AttentionCall) -> str:
    names = {
        Role.BATCH: "batch-like",
        Role.BROADCAST: "batch-like",
        Role.OWN: "queries",
        Role.KEYS: "keys",
    }
    return " x ".join(f"{t.size} ({names.get(t.role, '?')})" for t in call.tiles)


def _not_empty(tiles: Sequence[Tile]) -> bool:
    return all(tile.size for tile in tiles)


class _Proof:
    """One run without changes and some with, and what follows for each call."""

    def __init__(
        self,
        run: Run,
        calls: Sequence[AttentionCall],
        inputs: tuple[Any, ...],
        others: tuple[Any, ...],
    ) -> None:
        inputs, others = (tuple(map(oriented, each)) for each in (inputs, others))
        self._run, self._inputs, self._others = run, inputs, others
        self._batch = len(inputs[0])
        self._places = {call.place for call in calls}
        # Noise on embeddings harms nothing: token ids among the others get it too.
        self._embedded = (*inputs, *(o for o in others if _are_ids(o, self._batch)))
        self._changes = changes(self._embedded, self._batch)
        self._integers = any(is_integer(each) for each in inputs[:1])
        self._random = False
        self._off = self._runs(off=True)
        self._on: tuple[dict[int, Seen], list[dict[int, Seen]]] | None = None

    def of(self, call: AttentionCall, groups: list[Tensor]) -> tuple[Layout, Keys]:
        found = self._evidence(call, *self._off)
        if not found.anything:
            # Nothing but attention leads to this call: leave attention on.
            if self._on is None:
                self._on = self._runs(off=False)
            found = self._evidence(call, *self._on)
        layout = proved_layout(found, self._changes, self._batch)
        flags, apart = key_flags(found, layout, self._changes, self._batch)
        status = key_status(flags, self._changes, self._integers)
        if apart:
            status = KeyStatus.APART
        alike = [i for i, known in enumerate(groups) if same_keys(known, flags)]
        group = alike[0] if alike else len(groups)
        if not alike:
            groups.append(flags)
        return layout, Keys(status, group, "proof run")

    def _evidence(
        self, call: AttentionCall, before: dict[int, Seen], after: list[dict[int, Seen]]
    ) -> Any:
        place = call.place
        if place not in before or any(place not in seen for seen in after):
            raise NotProvedError("the model does not always make this call")
        return evidence(call.tiles, before[place], [seen[place] for seen in after])

    def _runs(self, off: bool) -> tuple[dict[int, Seen], list[dict[int, Seen]]]:
        before = torch.get_rng_state()
        base, _ = self._one(None, off)
        if not torch.equal(torch.get_rng_state(), before):
            # The model draws random numbers: the same in every run, and in no other.
            torch.set_rng_state(before)
            self._random = True
            base, _ = self._one(None, off)
        found = []
        used = False
        for change in self._changes:
            seen, by_embedding = self._one(change, off)
            used = used or by_embedding
            found.append(seen)
        floats = any(
            isinstance(i, Tensor) and i.is_floating_point() for i in self._inputs
        )
        if not used and self._integers and not floats:
            # Token ids that no embedding layer was seen to take: change the ids.
            found = [self._one(change, off, ids=True)[0] for change in self._changes]
        return base, found

    def _one(
        self, change: Change | None, off: bool, ids: bool = False
    ) -> tuple[dict[int, Seen], bool]:
        inputs = self._inputs
        if change is not None:
            inputs = tuple(
                perturbed(each, positions, change)
                for each, positions in zip(inputs, change.positions, strict=False)
            )
            positions = change.positions[0]
            if ids and positions is not None:
                inputs = (other_ids(inputs[0], positions, change), *inputs[1:])
        probe = Probe(self._places, off, self._changes)
        perturbation = Perturbation(self._embedded, None if ids else change)
        others = tuple(map(_copied, self._others))
        same = (
            _same_random_numbers(inputs) if self._random else contextlib.nullcontext()
        )
        with perturbation, same:
            self._run((*inputs, *others), probe)
        return probe.seen, perturbation.used


def _are_ids(value: Any, batch: int) -> bool:
    return is_integer(value) and value.dim() == 2 and len(value) == batch


def _copied(argument: Any) -> Any:
    """A cache that the model writes to stays as it is."""
    if argument is None or isinstance(argument, (Tensor, bool, int, float, str)):
        return argument
    try:
        return copy.deepcopy(argument)
    except Exception:
        return argument


@contextlib.contextmanager
def _same_random_numbers(inputs: Sequence[Any]) -> Iterator[None]:
    """Dropout and its kind do the same in every run, and leave no trace."""
    devices = {i.device for i in inputs if isinstance(i, Tensor) and i.is_cuda}
    with torch.random.fork_rng(devices=[device.index for device in devices]):
        torch.manual_seed(0)
        yield


def example_dimension(call: AttentionCall) -> ExampleDimension:
    """Where the model's own tensors at a call hold the examples.

    Raises:
        NotImplementedError: in the middle of a dimension.
    """
    layout, tiles = call.layout, call.tiles
    if layout.examples is None:
        raise ValueError("one example is in no dimension of its own")
    tile = tiles[layout.examples]
    if isinstance(call, FusedCall):
        lead = [dim for dim, n in enumerate(call.lead_shape) if n != 1]
        return ExampleDimension(lead[layout.examples], layout.inner)
    assert isinstance(call, SoftmaxCall)
    for dim, axes in enumerate(axes_of(call.shape)):
        for axis in axes:
            low, high = axis.stride, axis.stride * axis.size
            if not low <= tile.stride < high:
                continue
            whole = (tile.stride, tile.stride * tile.size) == (low, high)
            if whole:
                return ExampleDimension(dim, layout.inner)
            if tile.stride * tile.size == high and not layout.inner:
                return ExampleDimension(dim, False)
            if tile.stride == low and layout.inner:
                return ExampleDimension(dim, True)
    raise NotImplementedError(
        f"The attention weights of layer {call.layer!r} have the examples in the "
        "middle of a dimension, so that they cannot be scaled one by one."
    )
