"""Rows that are not the examples, and options that are not whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_attngrad import (
    AttentionDeepLift,
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    IntegratedAttentionGradient,
    JointIntegratedGradients,
    LayerAttentionGradient,
    LLMAttentionGradient,
    SequenceAttentionGradient,
)
from tests.attr.language_models import WordTokenizer, decoder
from tests.attr.models import classifier, token_ids
from tests.attr.sequence_models import batch, recurrent

CLASSES = [
    AttentionGradient,
    LayerAttentionGradient,
    IntegratedAttentionGradient,
    AttentionRelevance,
    JointIntegratedGradients,
    AttentionDeepLift,
]


def method_of(
    kind: type, model: Any, forward: Callable[..., Any] | None = None, **options: Any
) -> Any:
    if kind in (JointIntegratedGradients, AttentionDeepLift):
        options["embedding"] = model.embedding
    if forward is None:
        return kind(model, **options)
    return kind(forward, list(model.layers), **options)


WRONG_ROWS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "mean": (lambda y: y.mean(0, keepdim=True), 1),
    "one number": (lambda y: y.mean(), 1),
    "first": (lambda y: y[:1], 1),
    "some": (lambda y: y[1:], 3),
    "twice": (lambda y: torch.cat([y, y]), 8),
}


@pytest.mark.parametrize("loss", [None, F.cross_entropy], ids=["output", "loss"])
@pytest.mark.parametrize("reduce", WRONG_ROWS)
@pytest.mark.parametrize("kind", CLASSES)
def test_other_rows_than_examples(kind: type, reduce: str, loss: Any) -> None:
    model, (ids, _) = classifier(), token_ids()
    change, rows = WRONG_ROWS[reduce]
    method = method_of(kind, model, lambda x: change(model(x)), loss_func=loss)
    with pytest.raises(ValueError, match=rf"returned {rows} rows? .* for 4 examples"):
        method.attribute(ids, target=1)


def test_no_target_and_other_rows() -> None:
    model, (ids, _) = classifier(()), token_ids()
    for change, rows in WRONG_ROWS.values():
        method = method_of(
            AttentionGradient, model, lambda x, c=change: c(model(x).squeeze(1))
        )
        with pytest.raises(
            ValueError, match=rf"returned {rows} rows? .* for 4 examples"
        ):
            method.attribute(ids)
    # Three numbers for one example are no score either.
    three = classifier((3,))
    method = method_of(AttentionGradient, three, lambda x: three(x)[0])
    with pytest.raises(ValueError, match=r"3 rows .* for 1 example "):
        method.attribute(ids[:1])


def test_one_number_for_one_example_is_a_score() -> None:
    """As in Captum."""
    model, (ids, _) = classifier(()), token_ids()
    expected = AttentionGradient(model).attribute(ids[:1])
    for forward in (
        lambda x: model(x).squeeze(),
        lambda x: model(x).sum(),
        lambda x: model(x)[0],
    ):
        found = method_of(AttentionGradient, model, forward).attribute(ids[:1])
        torch.testing.assert_close(found, expected)
    many = classifier()
    by_loss = AttentionGradient(
        lambda x: many(x)[:, 1].sum(), many.layers, loss_func=lambda o, t: -o
    )
    torch.testing.assert_close(
        by_loss.attribute(ids[:1]), AttentionGradient(many).attribute(ids[:1], 1)
    )


@pytest.mark.parametrize("loss", [None, F.cross_entropy], ids=["output", "loss"])
def test_sequence_models_with_other_rows(loss: Any) -> None:
    model = recurrent("luong")
    source, fed, targets, _ = batch()
    for change, rows in (
        (lambda y: y.mean(0, keepdim=True), 1),
        (lambda y: y[:1], 1),
        (lambda y: torch.cat([y, y]), 6),
    ):
        method = SequenceAttentionGradient(
            lambda *a, c=change: c(model(*a)), model.attention, loss_func=loss
        )
        with pytest.raises(ValueError, match=rf"{rows} examples.*shape \(3, 4\)"):
            method.attribute(source, targets, fed)


def test_language_models_with_other_rows() -> None:
    model = decoder()
    for rows in (0, 2):
        method = AttentionGradient(
            lambda x, rows=rows: model(x).expand(2, -1, -1)[:rows], list(model.layers)
        )
        llm = LLMAttentionGradient(method, WordTokenizer())
        with pytest.raises(
            ValueError, match=rf"shape \({rows}, 4, 23\).* for one text"
        ):
            llm.attribute("the cat sat", " on mat")


SIZES = [0, -1, 1.5, 2.0, True, "two", float("nan")]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "kind", [IntegratedAttentionGradient, JointIntegratedGradients]
)
def test_sizes_and_steps_of_paths(kind: type, size: Any) -> None:
    model, (ids, _) = classifier(), token_ids()
    method = method_of(kind, model)
    expected = "expected a whole number of at least 1"
    with pytest.raises(ValueError, match=rf"internal_batch_size=.*: {expected} \(or"):
        method.attribute(ids, target=1, internal_batch_size=size)
    with pytest.raises(ValueError, match=f"n_steps=.*: {expected} for gausslegendre"):
        method.attribute(ids, target=1, n_steps=size)


@pytest.mark.parametrize("size", SIZES[1:])
def test_joint_steps(size: Any) -> None:
    model, (ids, _) = classifier(), token_ids()
    with pytest.raises(ValueError, match=r"joint_steps=.*: expected .* at least 0\."):
        method_of(AttentionDeepLift, model).attribute(ids, target=1, joint_steps=size)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_sequences(size: Any) -> None:
    model = recurrent("luong")
    source, fed, targets, _ = batch()
    with pytest.raises(ValueError, match=r"internal_batch_size=.*: expected a whole"):
        SequenceAttentionGradient(model).attribute(
            source, targets, fed, internal_batch_size=size
        )


@pytest.mark.parametrize("option", ["start", "end", "max_outputs"])
def test_options_of_generation(option: str) -> None:
    model = recurrent("luong")
    source, *_ = batch()
    options: dict[str, Any] = {"start": 0, option: 1.5}
    with pytest.raises(ValueError, match=rf"{option}=1\.5: expected a whole number"):
        SequenceAttentionGradient(model).explain_generated(source, **options)


@pytest.mark.parametrize(
    "targets",
    [
        torch.full((3, 4), 0.7),
        [[0.7] * 4] * 3,
        torch.ones(3, 4, dtype=torch.bool),
        [[True] * 4] * 3,
    ],
)
def test_targets_of_sequences_are_ids(targets: Any) -> None:
    model = recurrent("luong")
    source, fed, *_ = batch()
    method = SequenceAttentionGradient(model)
    with pytest.raises(ValueError, match=r"must be token ids \(integers\).*got torch"):
        method.attribute(source, targets, fed)
    if isinstance(targets, Tensor):
        with pytest.raises(ValueError, match="generated must be token ids"):
            method.explain_generated(source, targets)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_answers_are_ids(dtype: torch.dtype) -> None:
    llm = LLMAttentionGradient(AttentionGradient(decoder()), WordTokenizer())
    with pytest.raises(ValueError, match=f"dtype {dtype}, expected the token ids"):
        llm.attribute("the cat sat", torch.ones(2, dtype=dtype))


def test_other_options_of_the_wrong_kind() -> None:
    model, (ids, _) = classifier(), token_ids()
    with pytest.raises(TypeError, match=r"loss_func=3 \(int\) cannot be called"):
        AttentionGradient(model, loss_func=3)
    for residual in ("half", True, float("nan"), 2):
        with pytest.raises(ValueError, match="expected a share, a number from 0 to 1"):
            AttentionRollout(model, residual=residual)
    for index in (None, 1.5, True):
        with pytest.raises(ValueError, match=r"ignore_index=.*: expected an integer"):
            SequenceAttentionGradient(model, ignore_index=index)
    method = AttentionGradient(lambda x: model(x) * 1j, list(model.layers))
    with pytest.raises(ValueError, match=r"returned torch\.complex128: a score is a"):
        method.attribute(ids, 1)
