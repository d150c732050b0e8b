"""Find out the layout of recorded calls: once for a model, then from memory."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad.capture._layout.axes import axes_of
from captum_attngrad.capture._layout.layout import ExampleDimension, Layout, only_layout
from captum_attngrad.capture._layout.weighing import Role, Tile
from captum_attngrad.capture._proof.proof import NotProvedError, RefutedError
from captum_attngrad.capture._proof.runs import ProofRuns, Run
from captum_attngrad.capture._softmax_call import SoftmaxCall
from captum_attngrad.capture.calls import AttentionCall, FusedCall
from captum_attngrad.capture.keys import Keys


@dataclass(frozen=True)
class Verdict:
    """What is known about one call."""

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
        """Whether a call of another forward pass has the same layout."""
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
        if isinstance(owner, MethodType):
            # Python makes a bound method anew each time that it is looked up.
            owner = owner.__self__
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
    layers: Sequence[Module] = (),
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
        layers (sequence of Module): the layers that were recorded.

    Raises:
        ValueError: a layout can neither be proved nor does it follow from the sizes.
    """
    batch = len(inputs[0]) if batch is None else batch
    # Which calls have as many keys tells a window from a cache of all tokens.
    lengths = [call.tiles[-1].size for call in calls]
    alike = tuple(lengths.index(length) for length in lengths)
    key = (
        tuple(_signature(call, inputs) for call in calls),
        alike,
        batch > 1,
        getattr(owner, "__func__", None),
        tuple(map(id, layers)),
    )
    known = memory.recall(owner, key, calls, batch)
    if known is None:
        with _same_buffers(owner):
            known = _find(calls, batch, run, inputs, others, conventional)
        memory.keep(owner, key, known)
    return known


@contextlib.contextmanager
def _same_buffers(owner: Any) -> Iterator[None]:
    """Statistics that a model keeps (in training mode, say) stay as they are."""
    buffers = list(owner.buffers()) if isinstance(owner, Module) else []
    before = [(buffer, buffer.detach().clone()) for buffer in buffers]
    try:
        yield
    finally:
        for buffer, values in before:
            if not torch.equal(buffer, values):
                # Past autograd, whose graph of the explained pass may hold it.
                buffer.data.copy_(values)


def _signature(call: AttentionCall, inputs: tuple[Any, ...]) -> Any:
    return (
        call.layer,
        call.site_index,
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
            try:
                proof = ProofRuns(run, calls, inputs, others)
            except RuntimeError:  # it may need a graph, to differentiate on its own
                proof = ProofRuns(run, calls, inputs, others, graph=True)
        except Exception as error:
            # The model cannot be run on other numbers, whatever the reason.
            reason = f"{type(error).__name__} in a run to prove it: {error}"
    verdicts: list[Verdict] = []
    for call in calls:
        layout, keys, refuted = None, Keys(), False
        if proof is not None:
            try:
                layout, keys = proof.of(call)
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
        Role.UNSHARED: "queries",
        Role.KEYS: "keys",
    }
    return " x ".join(f"{t.size} ({names.get(t.role, '?')})" for t in call.tiles)


def _not_empty(tiles: Sequence[Tile]) -> bool:
    return all(tile.size for tile in tiles)


def example_dimension(call: AttentionCall) -> ExampleDimension:
    """Where the model's own tensors at a call hold the examples.

    Raises:
        NotImplementedError: the examples are in the middle of a dimension.
    """
    layout, tiles = call.layout, call.tiles
    if layout.examples is None:
        raise ValueError("a single example has no dimension of its own")
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
        "middle of a dimension, so they cannot be scaled one by one."
    )
