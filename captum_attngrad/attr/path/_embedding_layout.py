"""Which dimension of an embedding holds the examples.

Most models embed ``(batch, tokens)``; XLNet transposes its ids first. If sizes do not
decide, one example at a time is changed: what changes in the embedding is that example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Run = Callable[[tuple[Tensor, ...]], Tensor]

# An entry has changed if it differs by more than this share of the largest difference:
# the others may differ in rounding.
_MIN_CHANGE = 1e-3


def batch_dimension(
    name: str,
    given: Tensor,
    inputs: tuple[Tensor, ...],
    baselines: tuple[Tensor, ...],
    embedded: Run,
    doubled: Callable[[], Tensor],
) -> int:
    """0 for ``(batch, tokens, features)``, 1 for ``(tokens, batch, features)``.

    Args:
        name (str): of the embedding layer.
        given (Tensor): what it returned for ``inputs``, of three dimensions.
        inputs, baselines (tuple of Tensor): of the same shapes, batch first.
        embedded (Callable): what it returns for other inputs of the same shapes.
        doubled (Callable): what it returns for all examples twice.

    Raises:
        ValueError: if neither dimension is that of the examples.
    """
    examples = len(inputs[0])
    fitting = [dim for dim in (0, 1) if given.shape[dim] == examples]
    if not fitting:
        raise ValueError(
            f"The embedding layer {name} returns shape {tuple(given.shape)} for "
            f"{examples} examples (dimension 0 of the inputs), expected (batch, tokens,"
            " features) or (tokens, batch, features). Pass the module that turns the "
            "tokens of this input into vectors."
        )
    if fitting == [0]:
        return 0
    proved = False
    for example, changed in _one_changed(inputs, baselines):
        where = _where_changed(given, embedded(changed))
        if not len(where):
            continue
        fitting = [dim for dim in fitting if bool((where[:, dim] == example).all())]
        if not fitting:
            raise ValueError(
                f"The embedding layer {name} returns shape {tuple(given.shape)}, and "
                f"when one of the {examples} examples is changed, other entries change "
                "too, so that the examples cannot be found in it. Call model.eval() if "
                "there is dropout. An embedding must not mix examples."
            )
        proved = True
        if len(fitting) == 1:
            break
    if len(fitting) == 1 and proved:
        return fitting[0]
    # All examples are alike, and like their baselines: only their number helps.
    rows, columns = doubled().shape[:2]
    twice = {(2 * examples, given.shape[1]): 0, (given.shape[0], 2 * examples): 1}
    found = twice.get((rows, columns))
    if found not in fitting:
        raise ValueError(
            f"The embedding layer {name} returns shape {tuple(given.shape)} for "
            f"{examples} examples, and {rows} x {columns} for twice as many, so that "
            "the examples cannot be found in it. Pass a module that returns (batch, "
            "tokens, features)."
        )
    return found


def _one_changed(
    inputs: tuple[Tensor, ...], baselines: tuple[Tensor, ...]
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """``(i, inputs)``, with example i replaced by its baseline or by the example before
    it."""
    examples = len(inputs[0])
    before = tuple(each.roll(1, dims=0) if each.dim() else each for each in inputs)
    for others in (baselines, before):
        for i in range(examples):
            changed = tuple(
                torch.cat([each[:i], other[i : i + 1], each[i + 1 :]])
                if each.dim() and len(each) == examples
                else each
                for each, other in zip(inputs, others, strict=True)
            )
            if not all(map(torch.equal, changed, inputs)):
                yield i, changed


def _where_changed(given: Tensor, other: Tensor) -> Tensor:
    """Indices ``(entries, 2)`` in the first two dimensions."""
    if given.shape != other.shape:
        return torch.cartesian_prod(*(torch.arange(n) for n in given.shape[:2]))
    difference = (other - given).abs().amax(dim=2)
    return (difference > _MIN_CHANGE * difference.max()).nonzero()
