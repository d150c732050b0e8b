r"""Masking tokens of a text and reading the model's answers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Target = int | Sequence[int] | Tensor

# Tokens (padding counted) that go through the model in one call.
DEFAULT_TOKENS_PER_BATCH = 32_768

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
    Marks the highest-scored tokens of each example, for several fractions at once.

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


def _target_index(target: Target, batch: int, device: torch.device) -> Tensor:
    index = torch.as_tensor(target, device=device)
    if index.is_floating_point() or index.dtype == torch.bool:
        raise TypeError(
            f"target has dtype {index.dtype}; expected class indices (integers)."
        )
    if index.numel() == 1:
        return index.reshape(1).expand(batch).long()
    if index.shape != (batch,):
        raise ValueError(
            f"target has shape {tuple(index.shape)}; expected one class index, or one "
            f"for each of the {batch} examples."
        )
    return index.long()


def _checked_probabilities(output: Any, rows: int, target: Tensor) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[0] != rows:
        got = (
            f"shape {tuple(output.shape)}"
            if isinstance(output, Tensor)
            else type(output).__name__
        )
        raise ValueError(
            f"forward_func returned {got} for {rows} examples; expected a tensor of "
            "probabilities of shape (batch, classes)."
        )
    n_classes = output.shape[1]
    if int(target.min()) < 0 or int(target.max()) >= n_classes:
        wrong = target[(target < 0) | (target >= n_classes)][0]
        raise ValueError(
            f"target {int(wrong)} is out of range; forward_func returned "
            f"{n_classes} classes, so expected 0 to {n_classes - 1}."
        )
    if not bool(((output > -1e-4) & (output < 1 + 1e-4)).all()):
        raise ValueError(
            "forward_func must return probabilities, but its output has values outside "
            f"[0, 1] (from {float(output.min()):.4g} to {float(output.max()):.4g}). "
            "Apply a softmax: lambda *args: model(*args).softmax(-1)."
        )
    return output


def _rows_of(args: tuple[Any, ...], rows: Tensor, batch: int) -> tuple[Any, ...]:
    return tuple(
        arg[rows]
        if isinstance(arg, Tensor) and arg.dim() > 0 and arg.shape[0] == batch
        else arg
        for arg in args
    )


class Answers(NamedTuple):
    r"""
    The model's answers about the explained class.

    Args:
        p (Tensor): Its probability.
        margin (Tensor): Its probability minus that of the most probable other class,
            same shape: negative where the model predicts another class.
    """

    p: Tensor
    margin: Tensor

    def split(self, sizes: Sequence[int]) -> list["Answers"]:
        """Pieces of the given sizes along the variants, dimension 1."""
        parts = (part.split(list(sizes), dim=1) for part in self)
        return [Answers(*pieces) for pieces in zip(*parts, strict=True)]

    def squeeze(self) -> "Answers":
        """(batch, 1) as (batch,)."""
        return Answers(self.p.squeeze(1), self.margin.squeeze(1))


def _answers(probabilities: Tensor, target: Tensor) -> Answers:
    index = target.unsqueeze(1)
    p = probabilities.gather(1, index).squeeze(1)
    others = probabilities.scatter(1, index, -torch.inf).amax(dim=1)
    return Answers(p, p - others)


def masked_answers(
    forward_func: Callable[..., Tensor],
    inputs: Tensor,
    masks: Tensor,
    target: Target,
    replacement: int,
    additional_forward_args: Any = None,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
) -> Answers:
    r"""
    The model's answers about the target class after tokens have been masked, for many
    variants of each example.

    Variants of one example that mask the same tokens are run once. Distinct variants
    are run in batches of at most ``max_tokens_per_batch`` tokens, without gradients.

    Args:
        forward_func (Callable): Maps token ids (rows, tokens), followed by
            ``additional_forward_args``, to class probabilities (rows, classes).
        inputs (Tensor): Token ids, shape (batch, tokens).
        masks (Tensor): Boolean, shape (batch, variants, tokens): True where the token
            is replaced.
        target (int, Sequence of int or Tensor): Class index, for all or for each
            example.
        replacement (int): Token id that replaces a masked token, such as the mask or
            unknown token.
        additional_forward_args (Any, optional): Further arguments of ``forward_func``,
            as in Captum. Tensors whose first dimension is the batch are repeated along
            with the variants.
            Default: None
        max_tokens_per_batch (int): Tokens, padding counted, in one call of
            ``forward_func``. At least one row is run whatever its length.
            Default: 32768

    Returns:
        *Answers*: The target's probability and its margin over the best other class
        (infinite if there is no other), each of shape (batch, variants) and the dtype
        that ``forward_func`` returns.

    Raises:
        ValueError: On shapes that do not agree, a target out of range, or an output of
            ``forward_func`` that is not a table of probabilities.
        TypeError: If ``masks`` is not boolean or ``target`` does not hold integers.

    Examples::

        >>> forward = lambda ids, mask: model(ids, mask).softmax(-1)
        >>> masks = top_token_masks(attributions, attributable, [0.1, 0.5])
        >>> answers = masked_answers(
        ...     forward, input_ids, masks, target=1, replacement=0,
        ...     additional_forward_args=(attention_mask,),
        ... )
        >>> answers.p, answers.margin < 0  # each (batch, 2)
    """
    if inputs.dim() != 2:
        raise ValueError(
            f"inputs has shape {tuple(inputs.shape)}; expected token ids (batch, "
            "tokens)."
        )
    batch, length = inputs.shape
    if masks.dtype != torch.bool:
        raise TypeError(f"masks has dtype {masks.dtype}; expected torch.bool.")
    if masks.dim() != 3 or (masks.shape[0], masks.shape[2]) != (batch, length):
        raise ValueError(
            f"masks has shape {tuple(masks.shape)}; expected (batch, variants, "
            f"tokens) with batch {batch} and tokens {length}."
        )
    if max_tokens_per_batch < 1:
        raise ValueError(
            f"max_tokens_per_batch is {max_tokens_per_batch}; expected 1 or more."
        )
    index = _target_index(target, batch, inputs.device)
    if additional_forward_args is None:
        args: tuple[Any, ...] = ()
    elif isinstance(additional_forward_args, tuple):
        args = additional_forward_args
    else:
        args = (additional_forward_args,)

    variants = masks.shape[1]
    example = torch.arange(batch, device=inputs.device)
    keys = torch.cat(
        [
            example.repeat_interleave(variants).unsqueeze(1),
            masks.reshape(batch * variants, length).long(),
        ],
        dim=1,
    )
    distinct, position = torch.unique(keys, dim=0, return_inverse=True)
    rows = distinct[:, 0]
    replaced = inputs[rows].masked_fill(distinct[:, 1:].bool(), replacement)

    rows_per_batch = max(1, max_tokens_per_batch // max(1, length))
    results = []
    with torch.no_grad():
        for start in range(0, len(rows), rows_per_batch):
            chunk = rows[start : start + rows_per_batch]
            output = forward_func(
                replaced[start : start + rows_per_batch],
                *_rows_of(args, chunk, batch),
            )
            output = _checked_probabilities(output, len(chunk), index[chunk])
            results.append(_answers(output, index[chunk]))
    return Answers(
        *(
            torch.cat(part)[position].reshape(batch, variants)
            for part in zip(*results, strict=True)
        )
    )


def masked_probabilities(
    forward_func: Callable[..., Tensor],
    inputs: Tensor,
    masks: Tensor,
    target: Target,
    replacement: int,
    additional_forward_args: Any = None,
    max_tokens_per_batch: int = DEFAULT_TOKENS_PER_BATCH,
) -> Tensor:
    r"""
    The probabilities of :func:`masked_answers`, which has the same arguments.

    Returns:
        *Tensor*: Shape (batch, variants), the dtype that ``forward_func`` returns.

    Examples::

        >>> p = masked_probabilities(
        ...     forward, input_ids, masks, target=1, replacement=0
        ... )  # (batch, variants)
    """
    return masked_answers(
        forward_func,
        inputs,
        masks,
        target,
        replacement,
        additional_forward_args,
        max_tokens_per_batch,
    ).p
