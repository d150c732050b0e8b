"""Embeddings that are laid out (tokens, batch, features), as those of XLNet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad import AttentionDeepLift, JointIntegratedGradients
from tests.attr.encoder import WIDTH, Encoder, close, fused, written_out

WORDS = 9


class Model(nn.Module):
    """Token ids to logits; with ``time_first`` the ids are turned around first."""

    def __init__(self, time_first: bool, attend: Any = fused) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.encoder = Encoder(2, 2, attend, causal=True)
        self.time_first = time_first

    def forward(self, ids: Tensor, factors: Tensor | None = None) -> Tensor:
        if self.time_first:
            x = self.embedding(ids.transpose(0, 1)).transpose(0, 1)
        else:
            x = self.embedding(ids)
        return self.encoder(x if factors is None else x * factors.unsqueeze(-1))


def models(attend: Any = fused) -> tuple[Model, Model]:
    torch.manual_seed(5)
    one = Model(True, attend).double().eval()
    two = Model(False, attend).double().eval()
    two.load_state_dict(one.state_dict())
    return one, two


def ways(model: nn.Module, embedding: nn.Module) -> list[Any]:
    """Both classes, with scores that are the embeddings' alone and with others."""
    slopes = AttentionDeepLift(model, embedding=embedding)
    joint = JointIntegratedGradients(model, embedding=embedding)
    return [
        lambda *a: slopes.attribute(*a, joint_steps=0),
        lambda *a: slopes.attribute(*a),
        lambda *a: joint.attribute(*a, n_steps=1),
        lambda *a: joint.attribute(*a, internal_batch_size=2 * len(a[0])),
    ]


@st.composite
def texts(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Ids and baselines, often of equal sizes, and often hard to tell apart."""
    batch = draw(st.integers(1, 4))
    length = draw(st.one_of(st.just(batch), st.integers(1, 4)))
    torch.manual_seed(draw(st.integers(0, 99)))
    ids = torch.randint(1, WORDS, (batch, length))
    kind = draw(st.sampled_from(["any", "masked", "alike", "diagonal", "same"]))
    if kind == "masked":
        return ids, torch.zeros_like(ids)
    if kind == "any":
        return ids, torch.where(torch.rand(ids.shape) < 0.5, ids, 0)
    ids = ids[:1].expand(batch, -1).clone()
    if kind == "alike":
        return ids, torch.randint(1, WORDS, (1, length)).expand(batch, -1).clone()
    baselines = ids.clone()
    if kind == "diagonal":
        baselines.fill_diagonal_(0)
    return ids, baselines


@given(texts(), st.sampled_from([fused, written_out]))
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_the_batch_first_model(case: Any, attend: Any) -> None:
    ids, baselines = case
    time_first, batch_first = models(attend)
    for found, expected in zip(
        ways(time_first, time_first.embedding),
        ways(batch_first, batch_first.embedding),
        strict=True,
    ):
        scores = found(ids, baselines, 1)
        assert scores.shape == ids.shape
        close(scores, expected(ids, baselines, 1))


@pytest.mark.parametrize("shape", [(2, 5), (5, 2), (4, 4), (1, 4), (3, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_xlnet(shape: tuple[int, int], masked: bool) -> None:
    """Against the same model that is given the embeddings, batch first."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.XLNetConfig(
        vocab_size=30, d_model=16, n_layer=2, n_head=2, d_inner=20, num_labels=3
    )
    model = transformers.XLNetForSequenceClassification(config).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)

    class Given(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(30, 16)
            self.embedding.weight = model.get_input_embeddings().weight
            self.model = model

        def forward(self, ids: Tensor, mask: Tensor | None = None) -> Any:
            return self.model(inputs_embeds=self.embedding(ids), attention_mask=mask)

    ids = torch.randint(3, 30, shape)
    baselines = torch.where(torch.rand(shape) < 0.5, ids, 0)
    mask = None
    if masked:
        mask = torch.ones(shape, dtype=torch.float64)
        mask[0, : shape[1] // 2] = 0  # XLNet is padded on the left
    batch_first = Given()
    for found, expected in zip(
        ways(model, model.get_input_embeddings()),
        ways(batch_first, batch_first.embedding),
        strict=True,
    ):
        scores = found(ids, baselines, 1, mask)
        assert scores.shape == shape
        close(scores, expected(ids, baselines, 1, mask))
        alone = [
            found(*(t[i : i + 1] for t in (ids, baselines)), 1, part)
            for i, part in enumerate(
                [None] * len(ids) if mask is None else mask[:, None]
            )
        ]
        torch.testing.assert_close(scores, torch.cat(alone), rtol=1e-6, atol=1e-9)
    joint = JointIntegratedGradients(model, embedding=model.get_input_embeddings())
    _, delta = joint.attribute(
        ids, baselines, 1, mask, n_steps=40, return_convergence_delta=True
    )
    assert delta.abs().max() < 1e-4


def test_arguments_that_are_not_of_the_examples_stay_as_they_are() -> None:
    """As many as there are examples, by accident: nothing needs to be doubled."""
    factors = torch.rand(1, 4, dtype=torch.float64) + 0.5
    ids, results = torch.randint(1, WORDS, (4, 4)), []
    for model in models():
        method = AttentionDeepLift(
            lambda x, f, m=model: m(x, f[None]),
            model.encoder,
            embedding=model.embedding,
        )
        results.append(method.attribute(ids, 0, 1, factors[0], joint_steps=0))
    close(*results)


def test_inside_inference_mode() -> None:
    model, _ = models()
    ids = torch.randint(1, WORDS, (4, 4))
    for way in ways(model, model.embedding):
        expected = way(ids, 0, 1)
        with torch.inference_mode():
            found = way(ids.clone(), 0, 1)
        close(found.clone(), expected)
    assert not model.embedding._forward_hooks


class Strange(nn.Module):
    """An embedding of another kind than any that is known."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.table = nn.Embedding(WORDS, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        if self.kind == "mixed":
            return x - x.mean((0, 1), keepdim=True)
        if self.kind == "dropout":
            return nn.functional.dropout(x, 0.5)
        if self.kind == "pairs":
            return x.unflatten(0, (-1, 2)).flatten(1, 2)
        assert self.kind == "first three"
        return x[:3].transpose(0, 1)


class WithStrange(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = Strange(kind)
        self.encoder = Encoder(1, 2, fused)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        return self.encoder(x if len(x) == 3 else x.reshape(len(ids), -1, WIDTH))


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (
            "mixed",
            (3, 3),
            r"when one of the 3 examples|or influence each other",
        ),
        ("dropout", (3, 3), r"other entries change too.*Call model\.eval\(\)"),
        (
            "pairs",
            (4, 5),
            r"shape \(2, 10, 4\) for 4 examples .* expected \(batch, tok",
        ),
    ],
)
def test_embeddings_in_which_examples_are_not_found(
    kind: str, shape: tuple[int, int], message: str
) -> None:
    model = WithStrange(kind).double()
    ids = torch.arange(9).repeat(3)[: shape[0] * shape[1]].view(shape)
    for way in ways(model, model.embedding):
        with pytest.raises(ValueError, match=message):
            way(ids, 0, 1)


def test_twice_as_many_examples_that_do_not_show() -> None:
    model = WithStrange("first three").double()
    ids = torch.full((3, 3), 4)
    for way in ways(model, model.embedding):
        with pytest.raises(
            ValueError, match=r"3 x 3 for twice as many|or influence each other"
        ):
            way(ids, ids.clone(), 1)
