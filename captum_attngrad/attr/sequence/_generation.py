"""What a sequence model generates: greedy decoding, and given token ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class GeneratedExplanation(NamedTuple):
    r"""
    What :meth:`SequenceAttentionGradient.explain_generated` returns.

    Attributes:
        token_ids (Tensor): the generated tokens, ``(batch, outputs)``, without the
            start token. After the end of an output they are meaningless.
        lengths (Tensor): their number in each example, including the end token,
            ``(batch,)``.
        attributions (Tensor or tuple[Tensor]): ``(batch, outputs, keys)``, as
            :meth:`SequenceAttentionGradient.attribute` returns it; rows after the end
            are 0.
    """

    token_ids: Tensor
    lengths: Tensor
    attributions: Tensor | tuple[Tensor]


def special_token(given: int | None, model: Any, name: str) -> int | None:
    """A token id, from the caller or from a Hugging Face model's settings."""
    if given is not None:
        return given
    for settings in ("generation_config", "config"):
        found = getattr(getattr(model, settings, None), name, None)
        if isinstance(found, list) and found:
            found = found[0]
        if isinstance(found, int):
            return found
    return None


def greedy(
    logits: Callable[[Tensor], Tensor],
    first: Tensor,
    end: int | None,
    max_outputs: int,
) -> Tensor:
    """The most likely token after each prefix: ``(batch, 1 + outputs)``, with the start
    token. It stops after ``max_outputs``, or when every example has reached ``end``."""
    ids = first
    ended = torch.zeros(len(first), dtype=torch.bool, device=first.device)
    for _ in range(max_outputs):
        token = logits(ids)[:, -1].argmax(dim=-1)
        if end is not None:
            token = token.masked_fill(ended, end)
            ended = ended | (token == end)
        ids = torch.cat([ids, token.to(ids).unsqueeze(1)], dim=1)
        if bool(ended.all()):
            break
    return ids


def checked_ids(ids: Any, examples: int) -> Tensor:
    """Generated token ids, ``(batch, 1 + outputs)``.

    Raises:
        ValueError: if they have another form.
    """
    ids = getattr(ids, "sequences", ids)  # generate(return_dict_in_generate=True)
    if (
        not isinstance(ids, Tensor)
        or ids.dim() != 2
        or len(ids) != examples
        or ids.shape[1] < 2
        or ids.is_floating_point()
        or ids.is_complex()
        or ids.dtype == torch.bool
    ):
        given = (
            f"{ids.dtype} of shape {tuple(ids.shape)}"
            if isinstance(ids, Tensor)
            else type(ids).__name__
        )
        raise ValueError(
            "generated must be token ids as model.generate(..., do_sample=False) "
            f"returns them: integers of shape (batch, 1 + outputs), here ({examples}, "
            f"1 + outputs), with the start token first; got {given}."
        )
    return ids.long()


def output_lengths(token_ids: Tensor, end: int | None) -> Tensor:
    """The number of tokens up to and including the first ``end``, ``(batch,)``."""
    total = token_ids.shape[1]
    if end is None:
        return torch.full((len(token_ids),), total, device=token_ids.device)
    is_end = token_ids == end
    first = is_end.int().argmax(dim=1) + 1
    return first.masked_fill(~is_end.any(dim=1), total)


def each_prefix(
    attribute: Callable[[Tensor, Tensor], Tensor],
    fed: Tensor,
    targets: Tensor,
    ignore_index: int,
) -> Tensor:
    """The last row of the attributions of each prefix, ``(batch, outputs, keys)``."""
    rows = []
    for t in range(targets.shape[1]):
        last = torch.full_like(targets[:, : t + 1], ignore_index)
        last[:, t] = targets[:, t]
        if bool((last[:, t] == ignore_index).all()):
            break
        rows.append(attribute(fed[:, : t + 1], last)[:, -1])
    keys = rows[-1].shape[1]  # each prefix has more if its own tokens are the keys
    rows = [torch.nn.functional.pad(row, (0, keys - row.shape[1])) for row in rows]
    rows += [torch.zeros_like(rows[0])] * (targets.shape[1] - len(rows))
    return torch.stack(rows, dim=1)
