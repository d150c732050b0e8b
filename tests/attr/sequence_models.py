"""Sequence-to-sequence models, written so that the attention weights can be perturbed:
``delta[:, t]`` is added to the weights that output t uses."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

SOURCE, OUTPUTS, EXAMPLES, CLASSES, WIDTH = 6, 4, 3, 7, 5
LENGTHS = torch.tensor([6, 3, 5])


class Attention(nn.Module):
    """One query per call; scores are additive or multiplicative."""

    def __init__(self, additive: bool) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.score = nn.Linear(WIDTH, 1, bias=False) if additive else None
        self.delta: list[Tensor] | None = None  # for the reference

    def forward(self, query: Tensor, states: Tensor, padding: Tensor) -> Tensor:
        query, keys = self.query(query).unsqueeze(1), self.key(states)
        if self.score is None:
            scores = (keys * query).sum(-1)
        else:
            scores = self.score((keys + query).tanh()).squeeze(-1)
        weights = scores.masked_fill(padding, -torch.inf).softmax(-1)
        if self.delta is not None:
            weights = weights + self.delta.pop(0)
        return (weights.unsqueeze(1) @ states).squeeze(1)


class Recurrent(nn.Module):
    """A GRU decoder. ``bahdanau``: additive attention before the step; ``luong``:
    multiplicative after it, fed into the next step; ``luong_plain``: not fed."""

    def __init__(self, kind: str, vocabulary: int = CLASSES) -> None:
        super().__init__()
        self.kind = kind
        self.join = "stack"
        self.source = nn.Embedding(vocabulary, WIDTH)
        self.encoder = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.token = nn.Embedding(vocabulary, WIDTH)
        self.attention = Attention(additive=kind == "bahdanau")
        self.cell = nn.GRUCell(WIDTH if kind == "luong_plain" else 2 * WIDTH, WIDTH)
        self.mix = nn.Linear(2 * WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, vocabulary)

    def forward(
        self, source: Tensor, fed: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        states, last = self.encoder(self.source(source))
        if padding is None:
            padding = torch.zeros_like(source, dtype=torch.bool)
        state, found = last[0], torch.zeros_like(last[0])
        outputs, contexts = [], []
        for token in self.token(fed).unbind(1):
            if self.kind == "bahdanau":
                found = context = self.attention(state, states, padding)
                state = self.cell(torch.cat([token, found], -1), state)
                outputs.append(state)
            else:
                if self.kind == "luong":
                    token = torch.cat([token, found], -1)
                state = self.cell(token, state)
                context = self.attention(state, states, padding)
                found = self.mix(torch.cat([context, state], -1)).tanh()
                outputs.append(found)
            contexts.append(context)
        return self._joined(outputs, contexts)

    def _joined(self, outputs: list[Tensor], contexts: list[Tensor]) -> Tensor:
        """One tensor of logits, put together in the way of ``self.join``."""
        if self.join == "logits":
            return torch.stack([self.out(y) for y in outputs], 1)
        if self.join == "cat":
            return self.out(torch.cat([y.unsqueeze(1) for y in outputs], dim=1))
        if self.join in ("write", "write time first"):
            whole = outputs[0].new_zeros(len(outputs), *outputs[0].shape)
            whole = whole if self.join == "write time first" else whole.transpose(0, 1)
            for t, y in enumerate(outputs):
                whole[(slice(None), t) if self.join == "write" else t] = y
            return self.out(whole if self.join == "write" else whole.transpose(0, 1))
        if self.join == "grow":
            whole = outputs[0].unsqueeze(1)
            for y in outputs[1:]:
                whole = torch.cat([whole, y.unsqueeze(1)], 1)
            return self.out(whole)
        whole = torch.stack(outputs, 1)
        if self.join == "two":
            return self.out(whole) + self.out(torch.stack(contexts, 1))
        if self.join == "twice":
            return self.out(whole) * self.out(torch.stack(outputs, 1)).sigmoid()
        if self.join == "nested":
            return self.out(torch.stack([y.tanh() for y in whole.unbind(1)], 1))
        if self.join == "reversed":
            return self.out(torch.stack(outputs[::-1], 1).flip(1))
        if self.join == "shared":
            return self.out(whole + whole.cumsum(1))
        if self.join == "past":  # what was attended to goes past the parts
            extra = contexts[0].unsqueeze(1)
            for context in contexts[1:]:
                extra = torch.cat([extra, context.unsqueeze(1)], 1)
            return self.out(whole + extra)
        assert self.join == "stack"
        return self.out(whole)


KINDS = ["bahdanau", "luong", "luong_plain"]


def recurrent(kind: str, vocabulary: int = CLASSES) -> Recurrent:
    torch.manual_seed(1)
    model = Recurrent(kind, vocabulary).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7)
    return model


class Transformer(nn.Module):
    """``nn.Transformer`` with embeddings."""

    def __init__(self, norm_first: bool = False, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.tokens = nn.Embedding(CLASSES, 8)
        self.places = nn.Embedding(12, 8)
        self.transformer = nn.Transformer(
            8, 2, 2, 2, 12, 0.0, batch_first=batch_first, norm_first=norm_first
        )
        self.out = nn.Linear(8, CLASSES)

    def embed(self, ids: Tensor) -> Tensor:
        return self.tokens(ids) + self.places(torch.arange(ids.shape[1]))

    def forward(
        self, source: Tensor, fed: Tensor, padding: Tensor | None = None
    ) -> Tensor:
        x, y = self.embed(source), self.embed(fed)
        if not self.batch_first:
            x, y = x.transpose(0, 1), y.transpose(0, 1)
        mask = nn.Transformer.generate_square_subsequent_mask(fed.shape[1]).to(x)
        y = self.transformer(
            x,
            y,
            tgt_mask=mask,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.out(y if self.batch_first else y.transpose(0, 1))


def transformer(norm_first: bool = False, batch_first: bool = True) -> Transformer:
    torch.manual_seed(2)
    with warnings.catch_warnings():  # of nested tensors, which nobody asked for
        warnings.simplefilter("ignore")
        return Transformer(norm_first, batch_first).double().eval()


def batch(
    source: int = SOURCE, outputs: int = OUTPUTS, examples: int = EXAMPLES
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source ids, ids that the decoder is fed with, targets, padding (True)."""
    generator = torch.Generator().manual_seed(3)

    def ids(length: int) -> Tensor:
        return torch.randint(CLASSES, (examples, length), generator=generator)

    lengths = torch.arange(source, 0, -1).repeat(examples)[:examples]
    padding = torch.arange(source) >= lengths.unsqueeze(1)
    return ids(source), ids(outputs), ids(outputs), padding


def one_by_one(
    output: Tensor,
    targets: Tensor,
    weights: list[Tensor],
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """For each ``(batch, ..., outputs, keys)``: row t by a backward pass of its own,
    from output t of each example alone."""
    rows: list[list[Tensor]] = [[] for _ in weights]
    for t in range(targets.shape[1]):
        if loss is None:
            score = sum(output[b, t, targets[b, t]] for b in range(len(targets)))
        else:
            score = -sum(
                loss(output[b : b + 1, t], targets[b : b + 1, t])
                for b in range(len(targets))
            )
        found = torch.autograd.grad(score, weights, retain_graph=True)
        for kept, gradient in zip(rows, found, strict=True):
            kept.append(gradient[..., t, :])
    return [torch.stack(kept, dim=-2) for kept in rows]


def recurrent_truth(
    model: Recurrent,
    source: Tensor,
    fed: Tensor,
    targets: Tensor,
    padding: Tensor | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """``(batch, outputs, keys)`` from perturbed weights."""
    shape = (len(source), targets.shape[1], source.shape[1])
    delta = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    model.attention.delta = list(delta.unbind(1))
    try:
        output = model(source, fed, padding)
    finally:
        model.attention.delta = None
    (truth,) = one_by_one(output, targets, [delta], loss)
    return truth if padding is None else truth.masked_fill(padding.unsqueeze(1), 0)


def summed(model: Recurrent, source: Tensor, fed: Tensor, targets: Tensor) -> Tensor:
    """What a backward pass of the sum of all scores gives: not what is wanted."""
    shape = (len(source), targets.shape[1], source.shape[1])
    delta = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    model.attention.delta = list(delta.unbind(1))
    try:
        output = model(source, fed)
    finally:
        model.attention.delta = None
    score = output.gather(2, targets.unsqueeze(2)).sum()
    return torch.autograd.grad(score, delta)[0]
