r"""The model's answers on texts with masked tokens."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Target = int | Sequence[int] | Tensor

# Tokens (padding counted) that go through the model in one call.
DEFAULT_TOKENS_PER_BATCH = 32_768


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
        pieces = (values.split(list(sizes), dim=1) for values in self)
        return [Answers(*answers) for answers in zip(*pieces, strict=True)]

    def squeeze(self) -> "Answers":
        """(batch, 1) as (batch,)."""
        return Answers(self.p.squeeze(1), self.margin.squeeze(1))


def answers_about(probabilities: Tensor, target: Tensor) -> Answers:
    """The answers about the target classes (batch,)."""
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
            ``forward_func``. A single row may be longer.
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
            results.append(answers_about(output, index[chunk]))
    return Answers(
        *(
            torch.cat(part)[position].reshape(batch, variants)
            for part in zip(*results, strict=True)
        )
    )
