"""The one way to run a model, and the calls of one layer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_attngrad import (
    AttentionDeepLift,
    AttentionGradient,
    IntegratedAttentionGradient,
    JointIntegratedGradients,
    LayerAttentionGradient,
)
from captum_attngrad.attr._core.layer_calls import (
    LayerCalls,
    layer_calls,
    mean_over_heads,
    total_over_layers,
    with_heads,
)
from captum_attngrad.attr._core.run import Runner, gradients
from tests.attr.models import Classifier, classifier, token_ids


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def runner(model: Classifier, **options: Any) -> Runner:
    return Runner(model, [model], **options)


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("loss", [None, F.cross_entropy], ids=["output", "loss"])
def test_score_and_embeddings(graph: bool, loss: Any) -> None:
    model, (ids, mask) = classifier(), token_ids()
    with torch.no_grad():
        output = model(ids, mask)
    expected = output[:, 2]
    if loss is not None:
        expected = -F.cross_entropy(output, torch.full((4,), 2), reduction="none")
    run = runner(model, loss_func=loss).run(
        ids, 2, mask, graph=graph, embedding=model.embedding
    )
    close(run.score, expected)
    assert not run.score.requires_grad
    assert run.embeddings is not None
    close(run.embeddings, model.embedding.weight[ids].detach())
    assert [call.on_path for call in run.record] == [graph, graph]


def test_gradient_of_embeddings_that_are_put_in() -> None:
    model, (ids, mask) = classifier(), token_ids()
    replacement = torch.randn(4, 5, 8, dtype=torch.float64)
    whole = classifier(embed=False)
    whole.load_state_dict(model.state_dict(), strict=False)
    leaf = replacement.clone().requires_grad_()
    expected = whole(leaf, mask)[:, 1]
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    run = runner(model).run(
        ids, 1, mask, graph=True, embedding=model.embedding, replacement=replacement
    )
    close(run.score, expected.detach())
    assert run.embedding_gradient is not None
    close(run.embedding_gradient, gradient)
    assert run.embeddings is None
    assert not replacement.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_open_run_can_be_differentiated_in_any_mode(mode: Any) -> None:
    model, (ids, mask) = classifier(), token_ids()
    with mode():
        one = runner(model)
        with one.open(ids, mask, one.score_of(0, ids), graph=True) as opened:
            record = one.arranged(opened)
            sources = [call.sources[0] for call in record]
            found = gradients(opened.score.sum(), sources)
            again = gradients([opened.score.sum()], sources)  # the graph is still there
    for left, right in zip(found, again, strict=True):
        assert left is not None
        assert right is not None
        assert torch.equal(left, right)
    assert gradients([], [1, 2]) == [None, None]


def test_a_model_that_writes_to_its_embeddings() -> None:
    class InPlace(Classifier):
        in_place = True

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            embedded = self.embedding(x)
            if self.in_place:
                embedded += 1
            else:
                embedded = embedded + 1
            return self.head(self.layers[0](embedded, mask).mean(1))

    torch.manual_seed(0)
    model, (ids, _) = InPlace().double().eval(), token_ids()
    for kind in (JointIntegratedGradients, AttentionDeepLift):
        results = []
        for model.in_place in (True, False):
            method = kind(model, embedding=model.embedding)
            results.append(method.attribute(ids, 0, 1))
        close(*results)


def test_with_loss_func_leaves_the_original_as_it_is() -> None:
    model, (ids, mask) = classifier(), token_ids()
    method = AttentionGradient(model, multiply_by_attention=True)
    before = method.attribute(ids, 1, mask)
    changed = method.with_loss_func(F.cross_entropy)
    assert type(changed) is AttentionGradient
    direct = AttentionGradient(
        model, multiply_by_attention=True, loss_func=F.cross_entropy
    )
    close(changed.attribute(ids, 1, mask), direct.attribute(ids, 1, mask))
    close(method.attribute(ids, 1, mask), before)
    assert method.loss_func is None


def test_warnings_point_at_the_line_of_the_user() -> None:
    class Unused(Classifier):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            x = self.embedding(x)
            self.layers[1](x)
            return self.head((x + self.layers[0](x)).mean(1))

    torch.manual_seed(0)
    model, (ids, _) = Unused().eval(), token_ids()
    joint = JointIntegratedGradients(model, embedding=model.embedding)
    for attribute in (
        AttentionGradient(model).attribute,
        LayerAttentionGradient(model).attribute,
        IntegratedAttentionGradient(model).attribute,
        joint.attribute,
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            attribute(ids, target=1)
        ours = [w for w in caught if "they count as 0" in str(w.message)]
        assert ours
        assert {Path(w.filename).name for w in ours} == {Path(__file__).name}


# -- the calls of one layer ---------------------------------------------------------


class Twice(nn.Module):
    """One attention module that runs twice, with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.inner.embedding(ids)
        for _ in range(2):
            x = x + self.inner.layers[0](x)
        return self.inner.head(x.mean(1))


def _recorded() -> list[LayerCalls]:
    model, (ids, _) = Twice(), token_ids()
    return layer_calls(Runner(model, [model]).record(ids, None))


def test_totals_of_a_layer() -> None:
    (layer,) = _recorded()
    first, second = layer.calls
    total = layer.total(lambda call, rows: call.weights().sum(2))
    close(total, (first.weights() + second.weights()).sum((1, 2)))
    rows = torch.tensor([0, 4, 5, 9])  # the rows of both calls, one after the other
    found = layer.total(
        lambda call, rows: call.weights(rows).squeeze(2), rows, mean_over_heads
    )
    expected = torch.stack(
        [
            first.weights()[0, :, 0],
            first.weights()[1, :, 4],
            second.weights()[2, :, 0],
            second.weights()[3, :, 4],
        ]
    )
    close(found, expected.mean(1))
    both = layer.concatenated(lambda call, rows: call.weights())
    close(both, torch.cat([first.weights(), second.weights()], dim=2))


def test_totals_of_chosen_heads_and_replicas() -> None:
    (layer,) = _recorded()
    first, second = layer.calls
    (chosen,) = with_heads([layer], torch.tensor([1]))
    summed = chosen.total(lambda call, rows: call.weights().sum(2))
    close(summed, (first.weights() + second.weights())[:, 1].sum(1))
    # Each call as if it were that of a replica, with half of eight examples.
    halves = LayerCalls(layer.name, [[first], [second]])
    query = torch.tensor([0, 1, 2, 3, 4, 3, 2, 1])
    found = halves.total(lambda call, rows: call.weights(rows).squeeze(2), query)
    every = torch.cat([first.weights(), second.weights()])
    close(found, every.sum(1)[torch.arange(8), query])
    close(
        total_over_layers([layer, chosen], lambda call, rows: call.weights().sum(2)),
        layer.total(lambda call, rows: call.weights().sum(2)) + summed,
    )
