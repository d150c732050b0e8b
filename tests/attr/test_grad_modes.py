"""Models that switch grad mode themselves, and the graph that starts at the first
attention call."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_attngrad import (
    AttentionGradient,
    LayerAttentionGradient,
    SequenceAttentionGradient,
    capture_attention,
)
from tests.attr.models import SelfAttention, classifier, token_ids
from tests.attr.surroundings import Replicated
from tests.reference import MaterialisedAttention

WIDTH, LAYERS = 4, 3
Block = Callable[[], AbstractContextManager[None]]


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


class Layer(nn.Module):
    """What attends is in a list, out of the sight of ``modules()``."""

    def __init__(self, attend: list[Callable[..., Tensor]]) -> None:
        super().__init__()
        self.qkv, self.attend = nn.Linear(WIDTH, 3 * WIDTH), attend

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        out = self.attend[0](q, k, v)
        return x + out.transpose(1, 2).flatten(2).tanh()


class Model(nn.Module):
    """Runs its layers in the way of one of the functions below."""

    def __init__(self, attend: Callable[..., Tensor], place: str, block: Block) -> None:
        super().__init__()
        self.attend = [attend]
        self.before = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(Layer(self.attend) for _ in range(LAYERS))
        self.between = nn.Linear(WIDTH, WIDTH)
        self.place, self.block = place, block

    def forward(self, x: Tensor) -> Tensor:
        # Copies: autograd refuses tensors that come from an inference_mode block.
        return PLACES[self.place](self, x, self.block).clone().sum(1)


def _rest(model: Model, h: Tensor, start: int) -> Tensor:
    for layer in model.layers[start:]:
        h = layer(h.clone())
    return h


def _before(model: Model, x: Tensor, block: Block) -> Tensor:
    with block():
        h = model.before(x)
    return _rest(model, h, 0)


def _around(first: int, after: int) -> Callable[[Model, Tensor, Block], Tensor]:
    def run(model: Model, x: Tensor, block: Block) -> Tensor:
        h = model.before(x)
        for layer in model.layers[:first]:
            h = layer(h)
        with block():
            for layer in model.layers[first:after]:
                h = layer(h)
        # A way round the block, so that what is before it stays on a path.
        return model.between(_rest(model, h.clone() + x, after))

    return run


def _between(model: Model, x: Tensor, block: Block) -> Tensor:
    h = model.layers[0](x)
    with block():
        other = model.between(h)
    return _rest(model, h + other.clone(), 1)


def _in_no_grad(model: Model, x: Tensor, block: Block) -> Tensor:
    with torch.no_grad():
        h = model.layers[0](x)
        with block():
            h = model.layers[1](h)
    return _rest(model, h, 2)


def _no_grad_within(model: Model, x: Tensor, block: Block) -> Tensor:
    with block():
        with torch.no_grad():
            h = model.layers[0](x)
        h = model.layers[1](h)
    return _rest(model, h, 2)


def _decorated(model: Model, x: Tensor, block: Block) -> Tensor:
    before, layer = block()(model.before), block()(model.layers[0])
    return _rest(model, layer(before(x).clone()), 1)


def _as_rotary_embeddings(model: Model, x: Tensor, block: Block) -> Tensor:
    """Constants, made without autograd before and between the attention calls."""
    h = x + torch.no_grad()(model.before)(x)
    h = model.layers[0](h) + torch.no_grad()(model.before)(x)
    with block():
        h = model.layers[1](h)
    return _rest(model, h, 2)


def _without_a_block(model: Model, x: Tensor, block: Block) -> Tensor:
    """Grad mode is set and never restored to what it was."""
    torch.set_grad_enabled(False)
    h = model.layers[0](x)
    torch.set_grad_enabled(True)
    with block():
        h = model.layers[1](h)
    return _rest(model, h, 2)


PLACES: dict[str, Callable[[Model, Tensor, Block], Tensor]] = {
    "before": _before,
    "around the first": _around(0, 1),
    "around the first two": _around(0, 2),
    "around the second": _around(1, 2),
    "around the last": _around(2, 3),
    "around all": _around(0, 3),
    "between": _between,
    "in no_grad": _in_no_grad,
    "no_grad within": _no_grad_within,
    "decorated": _decorated,
    "as rotary embeddings": _as_rotary_embeddings,
    "without a block": _without_a_block,
}
BLOCKS: dict[str, Block] = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
    "set_grad_enabled(True)": lambda: torch.set_grad_enabled(True),
    "inference_mode": torch.inference_mode,
}


class _NotingModes(MaterialisedAttention):
    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def __call__(self, *args: Tensor) -> Tensor:
        self.modes.append(torch.is_grad_enabled())
        return super().__call__(*args)


def true_gradients(model: Model, x: Tensor) -> list[Tensor] | None:
    """Of weights that are written out and differentiated, 0 where there is no path;
    None where the score has no graph, or no attention call is in it."""
    attend, given = _NotingModes(), model.attend[0]
    model.attend[0] = attend
    score = model(x)[:, 1].sum()
    model.attend[0] = given
    if not score.requires_grad or not any(attend.modes):
        return None
    weights = [w for w in attend.weights if not w.is_inference()]
    found = iter(
        torch.autograd.grad(score, weights, allow_unused=True) if weights else ()
    )
    gradients = [None if w.is_inference() else next(found) for w in attend.weights]
    return [torch.zeros(2, 2, 5, 5).to(x) if g is None else g for g in gradients]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("attend", [fused, written_out])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("place", PLACES)
def test_a_block_of_the_models_means_what_it_says(
    place: str, block: str, attend: Callable[..., Tensor], frozen: bool
) -> None:
    model = Model(attend, place, BLOCKS[block]).double().requires_grad_(not frozen)
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    truth = true_gradients(model, x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not depend on the attention")
        if truth is not None and not any(bool(t.any()) for t in truth):
            with pytest.raises(RuntimeError, match="no gradient reaches them"):
                AttentionGradient(model).attribute(x, target=1)
            return
        if truth is None:
            with pytest.raises(RuntimeError, match=r"gradients \(torch.no_grad"):
                AttentionGradient(model).attribute(x, target=1)
            return
        found = LayerAttentionGradient(model).attribute(x, target=1)
    assert torch.is_grad_enabled()
    for one, other in zip(found, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


# -- the graph starts at the first attention call ------------------------------------


class Watched(nn.Module):
    """Notes what requires a gradient, and how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(8, 8), nn.Linear(8, 3)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.first, self.last = SelfAttention(), SelfAttention()
        self.runs = 0
        self.with_graph: dict[str, bool] = {}

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.before(x)
        recurrent, _ = self.lstm(embedded)
        first = recurrent + self.first(recurrent)
        last = first + self.last(first)
        # Layouts are proved in passes without grad mode.
        self.runs += torch.is_grad_enabled()
        for name in ("embedded", "recurrent", "first", "last"):
            if not torch.is_grad_enabled():
                break
            self.with_graph[name] = locals()[name].requires_grad
        return self.after(last).sum(1)


@pytest.mark.parametrize("caller", [contextlib.nullcontext, torch.no_grad])
def test_there_is_no_graph_of_what_comes_first(caller: type) -> None:
    model, x = Watched(), torch.randn(2, 5, 8)
    with caller():
        AttentionGradient(model).attribute(x, target=1)
        graph = {"embedded": False, "recurrent": False, "first": True, "last": True}
        assert (model.with_graph, model.runs) == (graph, 1)
        # Of the last layer alone: nothing of the first is needed.
        AttentionGradient(model, model.last).attribute(x, target=1)
        assert (model.with_graph, model.runs) == ({**graph, "first": False}, 2)
        AttentionGradient(lambda x: model(x), model.last).attribute(x, target=1)
        assert (model.with_graph, model.runs) == ({**graph, "first": False}, 3)


def test_the_graph_starts_once_in_replicas() -> None:
    model = classifier()
    ids, _ = token_ids()
    truth = AttentionGradient(model).attribute(ids, target=1)
    runs = []
    spread = Replicated(model, 2)
    # Layouts are proved in passes without grad mode.
    spread.register_forward_pre_hook(
        lambda *_: runs.append(1) if torch.is_grad_enabled() else None
    )
    found = AttentionGradient(spread).attribute(ids, target=1)
    torch.testing.assert_close(found, truth)
    assert runs == [1]


# -- models that use autograd themselves ---------------------------------------------


def _by_grad(x: Tensor, weight: Tensor) -> Tensor:
    y = x.detach().requires_grad_()
    return torch.autograd.grad((y.square() @ weight).sum(), y)[0]


def _by_grad_of_what_came_before(x: Tensor, weight: Tensor) -> Tensor:
    y = x @ weight
    z = y.square()
    return torch.autograd.grad(z.sum(), y, allow_unused=not z.requires_grad)[0]


def _by_func(x: Tensor, weight: Tensor) -> Tensor:
    return torch.func.grad(lambda y: (y.square() @ weight).sum())(x)


def _by_func_in_enable_grad(x: Tensor, weight: Tensor) -> Tensor:
    with torch.enable_grad():
        return _by_func(x, weight)


def _by_a_hook(x: Tensor, weight: Tensor) -> Tensor:
    y = x @ weight
    y.register_hook(lambda gradient: gradient)
    y.retain_grad()
    return y


def _by_a_checkpoint(x: Tensor, weight: Tensor) -> Tensor:
    return checkpoint(lambda y: (y @ weight).tanh(), x, use_reentrant=False)


class UsesAutograd(nn.Module):
    def __init__(self, own: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.attention, self.head, self.own = SelfAttention(), nn.Linear(8, 3), own

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(self.own(x, self.weight))).sum(1)


@pytest.mark.parametrize(
    "own",
    [
        _by_grad,
        _by_grad_of_what_came_before,
        _by_func,
        _by_func_in_enable_grad,
        _by_a_hook,
        _by_a_checkpoint,
    ],
)
@pytest.mark.parametrize("inner", [False, True])
def test_models_that_use_autograd_themselves(
    own: Callable[..., Tensor], inner: bool
) -> None:
    model = UsesAutograd(own)
    x = torch.randn(2, 5, 8)
    layer = model.attention if inner else None
    found = AttentionGradient(model, layer).attribute(x, target=1)
    with capture_attention(model) as record:
        output = model(x)
    record.compute_gradients(output[:, 1])
    torch.testing.assert_close(found, record[0].gradient().sum((1, 2)))


class TwoStages(nn.Module):
    """An output for each position; the first stage runs in a block."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.first, self.last = SelfAttention(), SelfAttention()
        self.head, self.block = nn.Linear(8, 3), block

    def forward(self, x: Tensor) -> Tensor:
        with self.block():
            h = x + self.first(x)
        return self.head(h + self.last(h))


def test_one_explanation_for_each_output() -> None:
    x, targets = torch.randn(2, 5, 8), torch.randint(3, (2, 5))
    found = {}
    for block in (contextlib.nullcontext, torch.enable_grad, torch.no_grad):
        torch.manual_seed(1)
        model = TwoStages(block)
        # What the first stage does has no part in it.
        method = SequenceAttentionGradient(model, [model.last])
        found[block] = method.attribute(x, targets)
    for scores in found.values():
        torch.testing.assert_close(scores, found[contextlib.nullcontext])
