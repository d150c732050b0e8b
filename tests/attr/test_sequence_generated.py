"""Explaining what a model produces: in one pass, step by step, and by generate()."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_attngrad import SequenceAttentionGradient
from tests.attr.sequence_models import (
    CLASSES,
    KINDS,
    batch,
    recurrent,
    recurrent_truth,
    transformer,
)

START = 0


def _greedy(model: torch.nn.Module, source: Tensor, steps: int) -> Tensor:
    ids = torch.full((len(source), 1), START)
    for _ in range(steps):
        token = model(source, ids)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, token], 1)
    return ids


@pytest.mark.parametrize("kind", [*KINDS, "transformer"])
def test_one_pass_and_step_by_step_give_the_same(kind: str) -> None:
    model = transformer() if kind == "transformer" else recurrent(kind)
    source, _, _, _ = batch()
    method = SequenceAttentionGradient(model)
    options = {"start": START, "max_outputs": 7}
    explained = method.explain_generated(source, **options)
    steps = method.explain_generated(source, **options, step_by_step=True)
    ids = _greedy(model, source, 7)
    assert torch.equal(explained.token_ids, ids[:, 1:])
    assert torch.equal(steps.token_ids, ids[:, 1:])
    assert explained.lengths.tolist() == [7, 7, 7]
    torch.testing.assert_close(explained.attributions, steps.attributions)
    if kind != "transformer":
        truth = recurrent_truth(model, source, ids[:, :-1], ids[:, 1:])
        torch.testing.assert_close(explained.attributions, truth)
    given = method.explain_generated((source,), ids)
    torch.testing.assert_close(given.attributions[0], explained.attributions)


def test_nothing_is_explained_after_the_end() -> None:
    model = recurrent("bahdanau")
    source, _, _, _ = batch(examples=8)
    method = SequenceAttentionGradient(model)
    free = method.explain_generated(source, start=START, max_outputs=9)
    end = int(free.token_ids[0, 2])  # some token that the model does produce
    for step_by_step in (False, True):
        explained = method.explain_generated(
            source, start=START, end=end, max_outputs=9, step_by_step=step_by_step
        )
        for ids, stop, length, rows, others in zip(
            explained.token_ids,
            free.token_ids,
            explained.lengths.tolist(),
            explained.attributions,
            free.attributions,
            strict=True,
        ):
            known = stop.tolist()
            assert length == (known.index(end) + 1 if end in known else 9)
            assert torch.equal(ids[:length], stop[:length])
            torch.testing.assert_close(rows[:length], others[: len(rows)][:length])
            assert bool((rows[length:] == 0).all())
    assert len(set(explained.lengths.tolist())) > 1
    # Decoding stops once every example has ended.
    longest = max(explained.lengths.tolist())
    assert explained.token_ids.shape[1] == min(9, longest)


@pytest.mark.parametrize("name", ["T5", "BART", "Marian"])
def test_ids_from_generate(name: str) -> None:
    pytest.importorskip("transformers")
    from tests.attr.test_sequence_huggingface import build, ids

    model = build(name, "sdpa")
    source, mask, _, _ = ids()
    generated = model.generate(
        source, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=6
    )
    method = SequenceAttentionGradient(model)
    explained = method.explain_generated((source, mask), generated)
    # Start and end are in the model's own settings: greedy decoding finds the same.
    own = method.explain_generated((source, mask), max_outputs=6)
    length = int(own.lengths.min())
    assert torch.equal(own.lengths, explained.lengths)
    assert torch.equal(own.token_ids[:, :length], explained.token_ids[:, :length])
    torch.testing.assert_close(explained.attributions[0], own.attributions[0])
    steps = method.explain_generated((source, mask), generated, step_by_step=True)
    torch.testing.assert_close(explained.attributions[0], steps.attributions[0])
    assert explained.attributions[0].shape == (3, generated.shape[1] - 1, 7)


def test_self_attention_of_a_growing_prefix() -> None:
    model = transformer()
    source, _, _, _ = batch()
    layers = [layer.self_attn for layer in model.transformer.decoder.layers]
    method = SequenceAttentionGradient(model, layers)
    explained = method.explain_generated(source, start=START, max_outputs=5)
    steps = method.explain_generated(
        source, start=START, max_outputs=5, step_by_step=True
    )
    assert explained.attributions.shape == (3, 5, 5)
    torch.testing.assert_close(explained.attributions, steps.attributions)


@pytest.mark.parametrize(
    ("generated", "options", "message"),
    [
        (None, {}, "start is missing"),
        (
            None,
            {"start": 0, "max_outputs": 0},
            "max_outputs=0: expected a whole number of at least 1",
        ),
        (torch.zeros(3, 1).long(), {}, r"1 \+ outputs\), with the start token first"),
        (torch.zeros(2, 4).long(), {}, r"here \(3, 1 \+ outputs\).*shape \(2, 4\)"),
        (torch.zeros(3, 4), {}, r"got torch\.float32 of shape \(3, 4\)"),
        ([[0, 1]] * 3, {}, "got list"),
        (torch.full((3, 4), CLASSES), {}, "index out of range|out of range"),
    ],
)
def test_bad_input(generated: object, options: dict[str, int], message: str) -> None:
    method = SequenceAttentionGradient(recurrent("luong"))
    with pytest.raises((ValueError, IndexError), match=message):
        method.explain_generated(batch()[0], generated, **options)
