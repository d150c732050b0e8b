"""From the outputs of a sequence model to one score for each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_attngrad.attr._core.target import LossFunction, loss_scores


def checked_targets(targets: Any, examples: int) -> Tensor:
    """``targets`` as token ids ``(batch, outputs)``."""
    try:
        ids = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{_EXPECTED}, got {targets!r:.80}.") from error
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{_EXPECTED}, got {ids.dtype}.")
    if ids.dim() != 2 or len(ids) != examples:
        raise ValueError(
            f"{_EXPECTED}: here ({examples}, outputs), got shape {tuple(ids.shape)}."
        )
    if not ids.numel():
        raise ValueError(f"targets is empty: its shape is {tuple(ids.shape)}.")
    return ids.long()


_EXPECTED = "targets must be token ids (integers) of shape (batch, outputs)"


def check_output(output: Tensor, targets: Tensor, ignore_index: int) -> None:
    """
    Raises:
        ValueError: if the model did not return one row of classes for each target, or
            a target is not one of the classes.
    """
    shape, expected = tuple(output.shape), tuple(targets.shape)
    if output.dim() != 3:
        raise ValueError(
            f"forward_func returned shape {shape}, expected (batch, outputs, classes): "
            "one row of scores for each output token, under teacher forcing."
        )
    if shape[:2] != expected:
        raise ValueError(
            f"forward_func returned shape {shape}, that is {shape[1]} outputs for "
            f"{shape[0]} examples, and targets has shape {expected}. Pass one token id "
            "for each output of the model, and "
            f"{ignore_index} (ignore_index) for outputs that are not explained."
        )
    wrong = ((targets < 0) | (targets >= shape[2])) & (targets != ignore_index)
    if bool(wrong.any()):
        example, position = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"targets[{example}, {position}] = {int(targets[example, position])} is "
            f"out of range: forward_func returned shape {shape}, so token ids go from "
            f"0 to {shape[2] - 1} (and {ignore_index} is ignored)."
        )
    if bool((targets == ignore_index).all()):
        raise ValueError(
            f"All targets are {ignore_index} (ignore_index): nothing to explain."
        )


def output_scores(
    output: Tensor, targets: Tensor, kept: Tensor, loss_func: LossFunction | None
) -> Tensor:
    """``output[b, t, targets[b, t]]`` or minus its loss, ``(batch, outputs)``. Where an
    output is not ``kept``, its score is some finite number."""
    if loss_func is None:
        ids = targets.masked_fill(~kept, 0).unsqueeze(-1)
        return output.gather(2, ids).squeeze(-1)
    rows = kept.flatten().nonzero().squeeze(1)
    classes = output.flatten(0, 1).index_select(0, rows)
    scores = loss_scores(classes, targets.flatten()[rows], loss_func, len(rows))
    return scores.new_zeros(kept.numel()).index_add(0, rows, scores).view(kept.shape)
