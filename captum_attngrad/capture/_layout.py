"""Where the examples are in a call's tensors, and how to scale them one by one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def find_batch(
    sizes: Sequence[int], batch_size: int | None, may_fold: bool
) -> tuple[int, int]:
    """Which of the dimensions is the batch, and how many heads are folded into it."""
    if batch_size is None or sizes[0] == batch_size or batch_size == 0:
        return 0, 1
    if may_fold and sizes[0] % batch_size == 0 and sizes[0] > 0:
        return 0, sizes[0] // batch_size
    if batch_size in sizes:
        return list(sizes).index(batch_size), 1
    return 0, 1


def scale_examples(
    tensor: Tensor, factor: Tensor, dims: Sequence[int], may_fold: bool
) -> Tensor:
    """``tensor`` times one factor for each example.

    Args:
        tensor (Tensor): holds the examples in one of the dimensions ``dims``.
        factor (Tensor): ``(examples,)``, or ``(1,)`` for all of them.
        dims (sequence of int): dimensions that may hold the examples, the likeliest
            first.
        may_fold (bool): the first of them may hold examples times heads.
    """
    factor = factor.to(tensor.device, tensor.dtype)
    if factor.numel() == 1:
        return tensor * factor
    sizes = [tensor.shape[dim] for dim in dims] or [1]
    batch, fold = find_batch(sizes, factor.numel(), may_fold)
    if sizes[batch] != factor.numel() * fold:
        raise ValueError(
            f"An attention call works on a batch of {sizes[batch]}, while forward_func "
            f"was called with {factor.numel()} examples (dimension 0; several steps go "
            "through as one batch). forward_func must keep the examples apart."
        )
    shape = [1] * tensor.dim()
    shape[dims[batch]] = -1
    return tensor * factor.repeat_interleave(fold).view(shape)
