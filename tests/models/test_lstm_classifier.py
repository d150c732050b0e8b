from __future__ import annotations

import pytest
import torch
from captum.attr import (
    LayerIntegratedGradients,
    configure_interpretable_embedding_layer,
    remove_interpretable_embedding_layer,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_attngrad.models import AttentionLSTMClassifier
from captum_attngrad.text import pad_batch

VOCAB = 20


def _model(**options: int) -> AttentionLSTMClassifier:
    torch.manual_seed(0)
    model = AttentionLSTMClassifier(VOCAB, embedding_dim=5, hidden_size=4, **options)
    return model.double().eval()


def _alone(model: AttentionLSTMClassifier, sentence: list[int]) -> Tensor:
    """The reference: one sentence, no padding, no packing."""
    states, _ = model.lstm(model.embedding(torch.tensor([sentence])))
    context, _ = model.attention(states)
    logits: Tensor = model.classifier(context)
    return logits[0]


sentences = st.lists(
    st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=6), min_size=1, max_size=4
)


@given(sentences, st.integers(0, 3))
def test_padding_does_not_change_a_sentence(batch: list[list[int]], more: int) -> None:
    model = _model(num_classes=3)
    ids, mask = pad_batch([*batch, [1] * (6 + more)], padding_value=0)
    ids, mask = ids[:-1], mask[:-1]
    with torch.no_grad():
        expected = torch.stack([_alone(model, sentence) for sentence in batch])
        assert expected.shape == (len(batch), 3)
        for logits in (
            model(ids, mask),
            model(ids, mask.long()),
            model(ids),
        ):
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
        # What stands at masked positions does not matter.
        other = ids.masked_fill(~mask, 7)
        torch.testing.assert_close(model(other, mask), expected, rtol=0, atol=1e-12)


@given(sentences, st.randoms(use_true_random=False))
def test_masked_positions_are_taken_out_wherever_they_are(
    batch: list[list[int]], random: object
) -> None:
    model = _model()
    ids = torch.full((len(batch), 9), 3)
    mask = torch.zeros(len(batch), 9, dtype=torch.bool)
    for row, sentence in enumerate(batch):
        places = sorted(random.sample(range(9), len(sentence)))  # type: ignore[attr-defined]
        ids[row, places] = torch.tensor(sentence)
        mask[row, places] = True
    with torch.no_grad():
        expected = torch.stack([_alone(model, sentence) for sentence in batch])
        torch.testing.assert_close(model(ids, mask), expected, rtol=0, atol=1e-12)
        vectors = model.embedding(ids)
        logits = model(inputs_embeds=vectors, attention_mask=mask)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_a_word_that_counts_does_change_the_result() -> None:
    model = _model()
    with torch.no_grad():
        a, b, c = (model(torch.tensor([s])) for s in ([1, 2, 3], [1, 4, 3], [3, 2, 1]))
    assert (a - b).abs().max() > 1e-4
    assert (a - c).abs().max() > 1e-4


def test_gradients_with_holes_in_the_mask() -> None:
    """The way through gather, packing and back is differentiated correctly."""
    model = _model()
    mask = torch.tensor([[0, 1, 0, 1, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)
    vectors = torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)

    def run(vectors: Tensor) -> Tensor:
        logits: Tensor = model(inputs_embeds=vectors, attention_mask=mask)
        return logits

    assert torch.autograd.gradcheck(run, (vectors,))
    (gradient,) = torch.autograd.grad(run(vectors).sum(), vectors)
    assert not gradient[~mask].any()
    assert gradient[mask].any(dim=1).all()


def test_attention_aligns_with_the_input_positions() -> None:
    model = _model()
    mask = torch.tensor([[False, True, False, True]])
    seen: list[Tensor] = []
    hook = model.attention.register_forward_hook(lambda *a: seen.append(a[2][1]))
    model(torch.tensor([[3, 4, 5, 6]]), mask)
    hook.remove()
    assert (seen[0] > 0).tolist() == mask.tolist()


def test_a_row_of_padding_is_one_blank_word() -> None:
    model = _model()
    with torch.no_grad():
        expected = _alone(model, [0])
        for length in (1, 4):
            logits = model(torch.zeros(1, length, dtype=torch.long))[0]
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_the_padding_id_may_be_another() -> None:
    model = _model(padding_idx=4)
    assert not model.embedding.weight[4].any()
    with torch.no_grad():
        logits = model(torch.tensor([[0, 2, 4, 4]]))[0]
        torch.testing.assert_close(logits, _alone(model, [0, 2]), rtol=0, atol=1e-12)


def test_integrated_gradients_of_the_embedding() -> None:
    model = _model()
    ids = torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]])
    explainer = LayerIntegratedGradients(model, model.embedding)
    scores = explainer.attribute(ids, torch.zeros_like(ids), target=1, n_steps=64)
    assert isinstance(scores, Tensor)
    assert scores.shape == (2, 4, 5)
    # Captum compares with the output for the ids of the baseline, whose mask, unlike
    # that of the path, allows one word only; so completeness is checked by hand.
    mask = ids != 0
    with torch.no_grad():
        start = model(inputs_embeds=torch.zeros_like(scores), attention_mask=mask)
        expected = (model(ids) - start)[:, 1]
    torch.testing.assert_close(scores.sum((1, 2)), expected, rtol=0, atol=1e-5)
    assert not scores[0, 3].any()
    # With the mask passed on, Captum's own check holds as well.
    again, delta = explainer.attribute(
        ids,
        torch.zeros_like(ids),
        target=1,
        additional_forward_args=(mask,),
        n_steps=64,
        return_convergence_delta=True,
    )
    torch.testing.assert_close(again, scores, rtol=0, atol=1e-12)
    assert delta.abs().max() < 1e-5


@pytest.mark.filterwarnings("ignore:In order to make embedding layers")
def test_captums_interpretable_embedding() -> None:
    model = _model()
    ids = torch.tensor([[3, 4, 5, 0]])
    with torch.no_grad():
        expected = model(ids)
    layer = configure_interpretable_embedding_layer(model, "embedding")
    try:
        vectors = layer.indices_to_embeddings(ids)  # type: ignore[no-untyped-call]
        logits = model(vectors, ids != 0)
    finally:
        remove_interpretable_embedding_layer(model, layer)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_word_vectors_without_a_mask_all_count() -> None:
    model = _model()
    vectors = torch.randn(2, 3, 5, dtype=torch.float64)
    everything = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(
        model(inputs_embeds=vectors),
        model(inputs_embeds=vectors, attention_mask=everything),
    )


@pytest.mark.parametrize("mode", [True, False])
def test_the_modes_are_left_as_they_were(mode: bool) -> None:
    model = _model().train(mode)
    model(torch.tensor([[3, 4]]))
    assert {module.training for module in model.modules()} == {mode}
    hook = model.lstm.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(torch.tensor([[3, 4]]))
    hook.remove()
    assert {module.training for module in model.modules()} == {mode}


def test_evaluation_is_deterministic_and_dropout_only_trains() -> None:
    torch.manual_seed(0)
    model = AttentionLSTMClassifier(VOCAB, 5, 4, dropout=0.5)
    ids = torch.tensor([[3, 4, 5], [6, 0, 0]])
    assert not torch.equal(model.train()(ids), model(ids))
    assert torch.equal(model.eval()(ids), model(ids))


def test_the_names_of_the_parts() -> None:
    names = [name for name, _ in _model().named_children()]
    assert names == ["embedding", "lstm", "attention", "classifier", "dropout"]


@pytest.mark.gpu
def test_gradients_on_cuda_in_eval_mode() -> None:
    # cuDNN's LSTM has no backward pass in eval mode; the model must see to it.
    model = _model().float().cuda()
    ids = torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]], device="cuda")
    vectors = model.embedding(ids).detach().requires_grad_()
    logits = model(inputs_embeds=vectors, attention_mask=ids != 0)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), vectors)
    assert gradient.abs().sum() > 0
    torch.testing.assert_close(logits.cpu(), model.cpu()(ids.cpu()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either input_ids or inputs_embeds"),
        (
            {
                "input_ids": torch.ones(1, 2).long(),
                "inputs_embeds": torch.ones(1, 2, 5),
            },
            "not both",
        ),
        ({"input_ids": torch.ones(3).long()}, r"shape \(3,\).*unsqueeze\(0\)"),
        ({"input_ids": torch.ones(2, 0).long()}, "length of at least 1"),
        ({"input_ids": torch.ones(2, 3)}, r"torch.float32 of shape \(2, 3\)"),
        (
            {
                "input_ids": torch.ones(2, 3).long(),
                "attention_mask": torch.ones(2, 4),
            },
            r"shape \(2, 4\), expected \(batch, length\) = \(2, 3\)",
        ),
        (
            {
                "input_ids": torch.ones(2, 3).long(),
                "attention_mask": torch.tensor([[1, 0, 0], [0, 0, 0]]),
            },
            r"no position in row\(s\) \[1\]",
        ),
    ],
)
def test_errors_say_what_is_expected(
    arguments: dict[str, Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _model()(**arguments)
