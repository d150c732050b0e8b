from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_attngrad.models import AttentionSeq2Seq
from captum_attngrad.text import pad_batch

SOURCE, TARGET = 12, 9


def _model(**options: float) -> AttentionSeq2Seq:
    torch.manual_seed(0)
    model = AttentionSeq2Seq(SOURCE, TARGET, 5, 4, **options)  # type: ignore[arg-type]
    return model.double().eval()


def _alone(model: AttentionSeq2Seq, source: list[int], target: list[int]) -> Tensor:
    """The reference: one pair, no padding, no packing, the attention spelt out."""
    states, last = model.encoder(model.source_embedding(torch.tensor([source])))
    state = torch.tanh(model.bridge(last.flatten().unsqueeze(0)))
    context = torch.zeros(1, states.shape[2], dtype=states.dtype)
    attention = model.attention
    assert attention.query_projection is not None
    logits = []
    for previous in [model.start_idx, *target[:-1]]:
        embedded = model.target_embedding(torch.tensor([previous]))
        state = model.decoder(torch.cat([embedded, context], dim=1), state)
        scores = [
            float(
                attention.score(
                    torch.tanh(
                        attention.key_projection(key)
                        + attention.query_projection(state[0])
                    )
                )
            )
            for key in states[0]
        ]
        total = sum(math.exp(score) for score in scores)
        context = sum(
            math.exp(score) / total * key
            for score, key in zip(scores, states[0], strict=True)
        ).unsqueeze(0)  # type: ignore[union-attr]
        logits.append(model.classifier(torch.cat([state, context], dim=1))[0])
    return torch.stack(logits)


def _ids(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(3, size - 1), min_size=1, max_size=5)


@given(st.lists(st.tuples(_ids(SOURCE), _ids(TARGET)), min_size=1, max_size=4))
def test_against_one_pair_at_a_time(pairs: list[tuple[list[int], list[int]]]) -> None:
    model = _model()
    ids, mask = pad_batch([source for source, _ in pairs], 0)
    targets, there = pad_batch([target for _, target in pairs], 0)
    with torch.no_grad():
        fed = model.decoder_inputs(targets)
        for logits in (
            model(ids, fed, mask),
            model(ids, fed, mask.long()),
            model(ids, fed),
            # More padding changes nothing.
            model(F.pad(ids, (0, 2)), F.pad(fed, (0, 1)))[:, :-1],
            # Nor does what stands at masked positions.
            model(ids.masked_fill(~mask, 7), fed, mask),
        ):
            assert logits.shape == (*targets.shape, TARGET)
            for row, (source, target) in enumerate(pairs):
                expected = _alone(model, source, target)
                got = logits[row][there[row]]
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_no_output_sees_its_own_target_or_a_later_one() -> None:
    model = _model()
    ids = torch.tensor([[3, 4, 5]])
    fed = model.decoder_inputs(torch.tensor([[3, 4, 5, 6], [3, 4, 7, 6]]))
    assert fed.tolist() == [[1, 3, 4, 5], [1, 3, 4, 7]]
    with torch.no_grad():
        one, two = model(ids, fed[:1]), model(ids, fed[1:])
    torch.testing.assert_close(one[:, :3], two[:, :3], rtol=0, atol=0)
    assert (one[:, 3] - two[:, 3]).abs().max() > 1e-4


def test_attention_is_called_once_for_each_output() -> None:
    model = _model()
    weights: list[Tensor] = []
    hook = model.attention.register_forward_hook(lambda *a: weights.append(a[2][1]))
    ids = torch.tensor([[3, 4, 5], [6, 7, 0]])
    model(ids, torch.full((2, 4), 3))
    hook.remove()
    assert len(weights) == 4
    for weight in weights:
        assert weight.shape == (2, 3)
        assert float(weight[1, 2].detach()) == 0.0
        torch.testing.assert_close(weight.sum(1), torch.ones(2, dtype=torch.float64))


def test_greedy_decoding_is_what_teacher_forcing_finds_best() -> None:
    model = _model()
    with torch.no_grad():
        model.classifier.bias[model.end_idx] = 0.3  # so that rows end at several steps
    ids, mask = pad_batch(
        [[3, 4, 5], [6], [7, 8, 9, 10], [11, 3], [4, 4, 4], [5, 9]], 0
    )
    outputs = model.greedy_decode(ids, mask, max_outputs=6)
    assert outputs.shape[1] <= 6
    logits = model(ids, model.decoder_inputs(outputs), mask)
    logits[..., [model.padding_idx, model.start_idx]] = float("-inf")
    best = logits.argmax(dim=-1)
    for row, output in enumerate(outputs.tolist()):
        end = output.index(2) + 1 if 2 in output else len(output)
        assert best[row, :end].tolist() == output[:end]
        assert not any(output[end:])
        assert 0 not in output[:end]
        assert 1 not in output
        # A row alone gives the same.
        alone = model.greedy_decode(ids[row : row + 1], mask[row : row + 1])
        assert alone[0, :end].tolist() == output[:end]
    assert not outputs.is_inference()
    assert torch.equal(outputs, model.greedy_decode(ids, mask, max_outputs=6))


def test_greedy_decoding_ends() -> None:
    model = _model()
    ids = torch.tensor([[3, 4]])
    with torch.no_grad():
        model.classifier.bias.fill_(0.0)
        model.classifier.bias[model.end_idx] = 100.0
        assert model.greedy_decode(ids).tolist() == [[2]]
        model.classifier.bias[model.end_idx] = -100.0
        model.classifier.bias[5] = 100.0
        assert model.greedy_decode(ids, max_outputs=4).tolist() == [[5, 5, 5, 5]]


def test_gradients() -> None:
    model = _model()
    vectors = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    targets = torch.tensor([[3, 4, 2], [5, 2, 0]])

    def run(vectors: Tensor) -> Tensor:
        hook = model.source_embedding.register_forward_hook(lambda *_: vectors)
        try:
            logits: Tensor = model(mask.long(), targets, mask)
        finally:
            hook.remove()
        return logits

    assert torch.autograd.gradcheck(run, (vectors,))
    (gradient,) = torch.autograd.grad(run(vectors).sum(), vectors)
    assert not gradient[~mask].any()


def test_a_row_of_padding_is_one_blank() -> None:
    model = _model()
    targets = torch.tensor([[3, 2]])
    with torch.no_grad():
        one, three = (
            model(torch.zeros(1, n, dtype=torch.long), targets) for n in (1, 3)
        )
    torch.testing.assert_close(one, three, rtol=0, atol=1e-12)


def test_padding_between_other_ids_is_a_blank() -> None:
    model = _model()
    ids, fed = torch.tensor([[3, 0, 4]]), torch.tensor([[1, 3]])
    with torch.no_grad():
        assert torch.equal(model(ids, fed), model(ids, fed, torch.ones_like(ids)))


def test_modes_and_dropout() -> None:
    model = _model(dropout=0.5)
    ids, targets = torch.tensor([[3, 4, 0]]), torch.tensor([[3, 2]])
    assert torch.equal(model(ids, targets), model(ids, targets))
    hook = model.encoder.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(ids, targets)
    hook.remove()
    assert {module.training for module in model.modules()} == {False}
    model.train()
    assert not torch.equal(model(ids, targets), model(ids, targets))
    assert {module.training for module in model.modules()} == {True}


@pytest.mark.gpu
def test_gradients_on_cuda_in_eval_mode() -> None:
    # cuDNN's GRU has no backward pass in eval mode; the model must see to it.
    model = _model().float().cuda()
    ids = torch.tensor([[3, 4, 5], [6, 0, 0]], device="cuda")
    targets = torch.tensor([[3, 2], [4, 2]], device="cuda")
    logits = model(ids, targets)
    logits.sum().backward()
    assert model.source_embedding.weight.grad is not None
    expected = model.cpu()(ids.cpu(), targets.cpu())
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_errors_say_what_is_expected() -> None:
    model = _model()
    ids, targets = torch.ones(2, 3).long(), torch.ones(2, 4).long()
    with pytest.raises(ValueError, match=r"input_ids .*float32 of shape \(2, 3\)"):
        model(ids.float(), targets)
    with pytest.raises(ValueError, match=r"input_ids .*\(3,\).*unsqueeze\(0\)"):
        model(ids[0], targets)
    with pytest.raises(ValueError, match=r"decoder_input_ids .*shape \(2, 0\)"):
        model(ids, targets[:, :0])
    with pytest.raises(
        ValueError, match="decoder_input_ids has 1 rows and input_ids 2"
    ):
        model(ids, targets[:1])
    with pytest.raises(ValueError, match=r"shape \(2, 4\).*= \(2, 3\)"):
        model(ids, targets, targets)
    for bad in ([0, 0, 0], [0, 1, 1], [1, 0, 1]):
        mask = torch.tensor([[1, 1, 0], bad])
        with pytest.raises(ValueError, match=r"padding on the right.*\[1\]"):
            model(ids, targets, mask)
        with pytest.raises(ValueError, match=r"padding on the right.*\[1\]"):
            model.greedy_decode(ids, mask)
    with pytest.raises(ValueError, match=r"outputs .*shape \(4,\)"):
        model.decoder_inputs(targets[0])
    with pytest.raises(ValueError, match="max_outputs must be at least 1, got 0"):
        model.greedy_decode(ids, max_outputs=0)
