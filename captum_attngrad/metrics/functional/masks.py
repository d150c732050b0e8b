r"""Boolean masks of tokens: the top ones, each alone, random ones."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

#: Random masks of each text.
DEFAULT_SAMPLES = 20

#: Fractions of the tokens over which the erasure metrics are averaged by default.
DEFAULT_BINS = (0.05, 0.1, 0.2, 0.5)


def check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """The fractions as a tuple, or a ValueError that quotes the bad one."""
    checked = tuple(float(fraction) for fraction in fractions)
    if not checked:
        raise ValueError("bins is empty; expected at least one fraction in (0, 1].")
    for fraction in checked:
        if not 0.0 < fraction <= 1.0:
            raise ValueError(
                f"bins holds {fraction!r}; expected fractions of the tokens in "
                "(0, 1], for example 0.2 for 20%."
            )
    return checked


def n_top_tokens(n_tokens: int, fraction: float) -> int:
    r"""
    How many tokens the top ``fraction`` of ``n_tokens`` tokens is: rounded up, and so
    never none.

    Args:
        n_tokens (int): Number of tokens that may be chosen.
        fraction (float): In (0, 1].

    Returns:
        *int*: :math:`\lceil fraction \cdot n\_tokens \rceil`.

    Examples::

        >>> n_top_tokens(20, 0.05), n_top_tokens(21, 0.05), n_top_tokens(3, 0.05)
        (1, 2, 1)
    """
    # 0.07 * 100 is 7.000000000000001 in floating point and has to stay 7.
    return math.ceil(fraction * n_tokens - 1e-9)


def _first_position(where: Tensor) -> str:
    row, column = (int(i) for i in where.nonzero()[0])
    return f"example {row}, position {column}"


def check_scores(attributions: Tensor, attributable: Tensor) -> Tensor:
    """The scores, -inf where not attributable, or an error that says what is wrong."""
    if attributions.dim() != 2:
        raise ValueError(
            "attributions has shape "
            f"{tuple(attributions.shape)}; expected (batch, tokens)."
        )
    if attributable.dtype != torch.bool:
        raise TypeError(
            f"attributable has dtype {attributable.dtype}; expected torch.bool, True "
            "where a token may be masked."
        )
    if attributable.shape != attributions.shape:
        raise ValueError(
            f"attributable has shape {tuple(attributable.shape)} and attributions has "
            f"shape {tuple(attributions.shape)}; expected the same shape."
        )
    counts = attributable.sum(dim=1)
    if bool((counts == 0).any()):
        raise ValueError(
            f"Example {int((counts == 0).nonzero()[0])} has no attributable token, so "
            "nothing can be masked in it; leave such examples out."
        )
    bad = attributable & ~torch.isfinite(attributions)
    if bool(bad.any()):
        raise ValueError(
            "attributions must be finite where attributable is True; found "
            f"{float(attributions[bad][0])} at {_first_position(bad)}."
        )
    return attributions.masked_fill(~attributable, -torch.inf)


def top_token_masks(
    attributions: Tensor, attributable: Tensor, bins: Sequence[float]
) -> Tensor:
    r"""
    The highest-scored tokens of each example, for several fractions.

    The order is by signed score, highest first: a token with a negative score argues
    against the explained class and comes last. Equal scores keep their order in the
    text, first token first. The fraction is of the *attributable* tokens, rounded up
    (:func:`n_top_tokens`).

    Args:
        attributions (Tensor): Scores, shape (batch, tokens). Positions that are not
            attributable are ignored.
        attributable (Tensor): Boolean, shape (batch, tokens): True where a token may
            be chosen (so False on padding and special tokens).
        bins (Sequence of float): Fractions in (0, 1].

    Returns:
        *Tensor*: Boolean, shape (batch, bins, tokens), True on the chosen tokens.

    Raises:
        ValueError: On shapes that do not agree, NaN or infinite scores, an example
            without attributable tokens, or a fraction outside (0, 1].
        TypeError: If ``attributable`` is not boolean.

    Examples::

        >>> scores = torch.tensor([[0.1, 0.9, -0.5, 0.3]])
        >>> top_token_masks(scores, torch.ones(1, 4, dtype=torch.bool), [0.5])
        tensor([[[False,  True, False,  True]]])
    """
    fractions = check_fractions(bins)
    scores = check_scores(attributions, attributable)
    order = scores.sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    positions = torch.arange(order.shape[1], device=order.device)
    rank.scatter_(1, order, positions.expand_as(order))
    sizes = torch.tensor(
        [
            [n_top_tokens(n_tokens, fraction) for fraction in fractions]
            for n_tokens in attributable.sum(dim=1).tolist()
        ],
        device=order.device,
    )
    return rank.unsqueeze(1) < sizes.unsqueeze(2)


def all_but_top_token_masks(
    attributions: Tensor, attributable: Tensor, bins: Sequence[float]
) -> Tensor:
    """All attributable tokens except those of :func:`top_token_masks`, boolean (batch,
    bins, tokens)."""
    top = top_token_masks(attributions, attributable, bins)
    return attributable.unsqueeze(1) & ~top


def with_unmasked(masks: Tensor) -> Tensor:
    """The masks after one that masks nothing, (batch, 1 + variants, tokens)."""
    return torch.cat([masks.new_zeros(len(masks), 1, masks.shape[2]), masks], dim=1)


def checked_attributable(
    inputs: Tensor, attributions: Tensor, attributable: Tensor | None
) -> Tensor:
    """The attributable tokens, by default all, if there is a score for each token."""
    if attributions.shape != inputs.shape:
        raise ValueError(
            f"attributions has shape {tuple(attributions.shape)} and inputs has "
            f"shape {tuple(inputs.shape)}; expected one score for each token."
        )
    if attributable is None:
        return torch.ones_like(inputs, dtype=torch.bool)
    return attributable


def leave_one_out_masks(attributable: Tensor) -> Tensor:
    r"""
    One variant for each position, which masks the token there.

    Args:
        attributable (Tensor): Boolean, shape (batch, tokens).

    Returns:
        *Tensor*: Boolean, shape (batch, tokens, tokens); [b, i] is True at i alone, and
        nowhere if i is not attributable in text b.
    """
    one = torch.eye(attributable.shape[1], dtype=torch.bool, device=attributable.device)
    return one & attributable.unsqueeze(1)


def random_masks(
    attributable: Tensor, n_samples: int = DEFAULT_SAMPLES, seed: int = 0
) -> Tensor:
    r"""
    Random sets of tokens: first how many, evenly from 1 to all, then which.

    What is drawn for a text depends on the seed and on its number of attributable
    tokens, not on the batch it is in.

    Args:
        attributable (Tensor): Boolean, shape (batch, tokens).
        n_samples (int): Sets for each text.
            Default: 20
        seed (int): Seed.
            Default: 0

    Returns:
        *Tensor*: Boolean, shape (batch, n_samples, tokens), True in the set; at least
        one token in each.
    """
    result = torch.zeros(
        attributable.shape[0], n_samples, attributable.shape[1], dtype=torch.bool
    )
    drawn: dict[int, Tensor] = {}
    for row, chosen in enumerate(attributable.cpu()):
        n_tokens = int(chosen.sum())
        if n_tokens not in drawn:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + n_tokens)
            sizes = torch.randint(1, n_tokens + 1, (n_samples, 1), generator=generator)
            order = torch.rand(n_samples, n_tokens, generator=generator).argsort(dim=1)
            drawn[n_tokens] = order.argsort(dim=1) < sizes
        result[row, :, chosen] = drawn[n_tokens]
    return result.to(attributable.device)
