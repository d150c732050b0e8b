"""Invariant changes of users' own recurrent models, and of registered modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from captum_attngrad.metrics import (
    InvariantModelChanges,
    NotApplicableError,
    Resilience,
    register_invariance,
)
from captum_attngrad.metrics.resilience import invariances
from captum_attngrad.metrics.resilience.invariances import INVARIANT_CHANGES
from captum_attngrad.metrics.resilience.recurrent import recurrent_attentions
from captum_attngrad.models import AttentionLSTMClassifier
from tests.metrics.known import (
    N_WORDS,
    batch_of,
    gradient_x_embedding,
    occlusion,
    predicted,
    random_texts,
    text_model_of,
)

CHANGES = ("key_constant", "value_basis", "input_shift", "permutation")


class Recurrent(nn.Module):
    """A classifier as a user may write it; no name in it means anything here.

    All sizes are equal, so that sizes do not tell which layer reads the states.
    """

    def __init__(
        self,
        kind: type[nn.RNNBase],
        *,
        bidirectional: bool = False,
        layers: int = 1,
        packed: bool = False,
        head: bool = True,
    ) -> None:
        super().__init__()
        torch.manual_seed(7)
        size = 6
        width = size * (2 if bidirectional else 1)
        self.embedding = nn.Embedding(N_WORDS, size)
        self.encoder = kind(
            size, size, layers, batch_first=True, bidirectional=bidirectional
        )
        self.project = nn.Linear(width, width)
        self.context = nn.Linear(width, 1, bias=False)
        self.middle = nn.Linear(width, width) if head else nn.Identity()
        self.out = nn.Linear(width, 2)
        self.packed = packed
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(ids)
        if self.packed:
            x = pack_padded_sequence(
                x, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
            )
        states, _ = self.encoder(x)
        if self.packed:
            states, _ = pad_packed_sequence(
                states, batch_first=True, total_length=mask.shape[1]
            )
        scores = self.context(torch.tanh(self.project(states))).squeeze(2)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
        mean = (weights.unsqueeze(2) * states).sum(dim=1)
        logits: Tensor = self.out(torch.relu(self.middle(mean)))
        return logits


MODELS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: Recurrent(nn.LSTM),
    "LSTM, both directions, two layers": lambda: Recurrent(
        nn.LSTM, bidirectional=True, layers=2
    ),
    "LSTM, packed, both directions": lambda: Recurrent(
        nn.LSTM, bidirectional=True, packed=True
    ),
    "GRU": lambda: Recurrent(nn.GRU),
    "GRU, packed, both directions": lambda: Recurrent(
        nn.GRU, bidirectional=True, packed=True
    ),
    "RNN": lambda: Recurrent(nn.RNN),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("change", CHANGES)
def test_function_stays_the_same_and_parameters_move(change: str, name: str) -> None:
    model = MODELS[name]().double().eval()
    batch = batch_of(random_texts(6))

    def run() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(batch.input_ids, batch.attention_mask)
        return logits

    before = run()
    changed = INVARIANT_CHANGES[change](model, 1, run=run)
    with torch.no_grad():
        after = changed(batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    assert torch.equal(run(), before)
    own = model.state_dict()
    moved = [
        key
        for key, value in changed.state_dict().items()
        if key not in own or not own[key].equal(value)
    ]
    assert moved


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_resilience_of_a_users_own_model(kind: type[nn.RNNBase]) -> None:
    text_model = text_model_of(Recurrent(kind, bidirectional=True, packed=True))
    batch = batch_of(random_texts(8))
    target = predicted(text_model, batch)
    metric = Resilience()
    assert metric(text_model, batch, target, occlusion(text_model)).min() > 0.999
    # The embeddings are a factor of these scores, and input_shift moves them.
    moving = metric(text_model, batch, target, gradient_x_embedding(text_model))
    assert moving.mean() < 0.99


def test_readers_are_found_although_all_sizes_are_equal() -> None:
    model = Recurrent(nn.GRU).eval()
    batch = batch_of(random_texts(6))
    (found,) = recurrent_attentions(
        model, lambda: model(batch.input_ids, batch.attention_mask).detach()
    )
    assert found.recurrent == "encoder"
    assert found.readers == ("project", "middle")
    assert found.score == "context"
    assert found.embedding == "embedding"


def test_what_is_found_is_what_the_model_registers() -> None:
    torch.manual_seed(0)
    model = AttentionLSTMClassifier(N_WORDS, 6, 6).eval()

    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = model.lstm
            self.attention = model.attention
            self.classifier = model.classifier
            self.embedding = model.embedding
            self._run_lstm = model._run_lstm

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            states = self._run_lstm(self.embedding(ids), mask)
            context, _ = self.attention(states, mask=mask)
            logits: Tensor = self.classifier(context)
            return logits

    batch = batch_of(random_texts(6))
    renamed = Renamed().eval()
    (found,) = recurrent_attentions(
        renamed, lambda: renamed(batch.input_ids, batch.attention_mask).detach()
    )
    (registered,) = recurrent_attentions(model, None)
    assert set(found.readers) == set(registered.readers)
    assert found.score == registered.score
    assert found.embedding == registered.embedding


def test_states_that_something_else_reads_are_left_alone() -> None:
    class Squared(Recurrent):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            states, _ = self.encoder(self.embedding(ids))
            logits: Tensor = self.out(states.exp().mean(dim=1))
            return logits

    text_model = text_model_of(Squared(nn.LSTM))
    batch = batch_of(random_texts(4))
    with pytest.raises(NotApplicableError, match="No invariant change applies"):
        Resilience()(
            text_model, batch, predicted(text_model, batch), occlusion(text_model)
        )


class HandWritten(nn.Module):
    """An encoder without any module that is known here."""

    def __init__(self, size: int = 5) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.write = nn.Parameter(torch.randn(size, 4))
        self.read = nn.Parameter(torch.randn(4, size))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.write.T) @ self.read.T


class WithHandWritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = HandWritten()
        self.embedding = nn.Embedding(N_WORDS, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(self.embedding(ids)) * mask.unsqueeze(2)
        logits: Tensor = self.out(states.sum(dim=1))
        return logits


def test_a_registered_hand_written_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariances, "_REGISTERED", {})

    @register_invariance("permutation", HandWritten)
    def permute(module: nn.Module, generator: torch.Generator) -> None:
        assert isinstance(module, HandWritten)
        order = torch.randperm(len(module.write), generator=generator)
        module.write.copy_(module.write[order])
        module.read.copy_(module.read[:, order])

    @register_invariance("sign_flip", HandWritten)
    def flip(module: nn.Module, generator: torch.Generator) -> None:
        assert isinstance(module, HandWritten)
        module.write.neg_()
        module.read.neg_()

    try:
        model = WithHandWritten().double().eval()
        batch = batch_of(random_texts(5))
        before = model(batch.input_ids, batch.attention_mask)
        for change in ("permutation", "sign_flip"):
            changed = INVARIANT_CHANGES[change](model, 0)
            after = changed(batch.input_ids, batch.attention_mask)
            torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
            assert not torch.equal(
                changed.get_parameter("encoder.write"), model.encoder.write
            )
        with pytest.raises(NotApplicableError, match="value_basis: WithHandWritten"):
            INVARIANT_CHANGES["value_basis"](model, 0)
        text_model = text_model_of(WithHandWritten())
        target = predicted(text_model, batch)
        for changes in (None, ["sign_flip"]):
            metric = Resilience(InvariantModelChanges(changes))
            values = metric(text_model, batch, target, occlusion(text_model))
            assert values.min() > 0.99  # float32
    finally:
        INVARIANT_CHANGES.pop("sign_flip")
