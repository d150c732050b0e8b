"""Attention relevance, against the paper's rules on whole matrices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad.attr import AttentionRelevance
from tests import reference
from tests.attr.encoder import WIDTH, Encoder, Sizes, close, encoders
from tests.attr.encoder import weights_and_gradients as truth
from tests.attr.models import classifier, token_ids
from tests.attr.surroundings import Replicated
from tests.attr.test_errors import CrossAndSelf

Pair = tuple[Tensor, Tensor]


def mean_relevance(pair: Pair, signed: bool = False) -> Tensor:
    """Rule 5."""
    product = pair[0] * pair[1]
    return (product if signed else product.clamp(min=0)).mean(1)


def eye_like(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype).expand(len(matrix), -1, -1)


def normalised(own: Tensor, signed: bool) -> Tensor:
    """Rules 8 and 9, entry by entry."""
    result = own.clone()
    for b, i in torch.cartesian_prod(*map(torch.arange, own.shape[:2])).tolist():
        added = own[b, i].clone()
        added[i] -= 1
        size = added.abs().sum() if signed else added.sum()
        if size != 0:
            added = added / size
        added[i] += 1
        result[b, i] = added
    return result


@given(encoders(), st.booleans())
@settings(max_examples=60)
def test_one_sequence_equals_the_definition(case, signed: bool) -> None:
    model, x, tokens = case
    pairs = truth(model, x, tokens, 1)
    total = eye_like(pairs[0][0][:, 0])
    for pair in pairs:
        total = total + mean_relevance(pair, signed) @ total  # rule 6
    method = AttentionRelevance(model, signed=signed)
    close(method.attribute(x, 1, tokens), total.sum(1))
    close(method.attribute(x, 1, tokens, query=0), total[:, 0])
    rows, each = torch.randint(x.shape[1], (len(x),)), torch.arange(len(x))
    close(method.attribute(x, 1, tokens, query=rows), total[each, rows])
    if tokens is not None:
        found = method.attribute(x, 1, tokens, query=tokens)
        close(found, (total * tokens.unsqueeze(2)).sum(1))
        assert not found[~tokens].any()


@pytest.mark.parametrize("signed", [False, True])
def test_blocks_heads_and_replicas(signed: bool, monkeypatch) -> None:
    torch.manual_seed(0)
    model, x = Encoder(2, 3).double().eval(), torch.randn(2, 5, WIDTH).double()
    method = AttentionRelevance(model, signed=signed, heads=[0, 2])
    found = method.attribute(x, 1)
    pairs = [(a[:, [0, 2]], g[:, [0, 2]]) for a, g in truth(model, x, None, 1)]
    first, second = (mean_relevance(pair, signed) for pair in pairs)
    eye = eye_like(first)
    close(found, ((eye + second) @ (eye + first)).sum(1))
    monkeypatch.setattr("captum_attngrad.capture._masks.BLOCK", 2 * 3 * 5 * 2)
    close(method.attribute(x, 1), found)
    only = torch.tensor([[False] * 3, [True, False, True]])
    of_second = AttentionRelevance(model, signed=signed, heads=only).attribute(x, 1)
    close(of_second, (eye + second).sum(1))

    model, (ids, mask) = classifier(), token_ids()
    expected = AttentionRelevance(model, signed=signed).attribute(ids, 1, mask)
    spread = AttentionRelevance(Replicated(model, 2), signed=signed)
    close(spread.attribute(ids, 1, mask, query=mask), expected - (~mask).double())


def test_signs_by_hand() -> None:
    class Even(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            alike = torch.zeros_like(x)
            return F.scaled_dot_product_attention(alike, alike, x)[:, 0].sum(-1)

    x = torch.tensor([[[4.0], [-8.0], [2.0], [0.0]]])
    # A quarter of each value for the row that is read; 1 for the token itself.
    found = AttentionRelevance(Even()).attribute(x, query=0)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.0, 0.5, 0.0]]))
    found = AttentionRelevance(Even(), signed=True).attribute(x, query=0)
    torch.testing.assert_close(found, torch.tensor([[2.0, -2.0, 0.5, 0.0]]))
    found = AttentionRelevance(Even()).attribute(x, query=1)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("signed", [False, True])
def test_memory_at_length(signed: bool, monkeypatch) -> None:
    length, block = 512, 1 << 14
    monkeypatch.setattr("captum_attngrad.capture._masks.BLOCK", block)
    model, x = Encoder(2, 1).eval(), torch.randn(1, length, WIDTH)
    with Sizes() as sizes:
        AttentionRelevance(model, signed=signed).attribute(x, 1)
    assert length * WIDTH * 4 <= sizes.largest <= 4 * block < length * length


# -- two sequences --------------------------------------------------------------------


class Seq2Seq(nn.Module):
    """Source and target embeddings to logits of the last target position."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.transformer = nn.Transformer(8, 2, layers, layers, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        return self.head(self.transformer(source, target, tgt_mask=mask)[:, -1])

    def method(self, **options: object) -> AttentionRelevance:
        decoder = self.transformer.decoder.layers
        return AttentionRelevance(
            self,
            [block.self_attn for block in decoder],
            cross_layer=[block.multihead_attn for block in decoder],
            context_layer=self.transformer.encoder,
            **options,
        )


def attention_modules(model: Seq2Seq) -> list[nn.MultiheadAttention]:
    """In the order in which they run."""
    modules = [block.self_attn for block in model.transformer.encoder.layers]
    for block in model.transformer.decoder.layers:
        modules += [block.self_attn, block.multihead_attn]
    return modules


def seq2seq_truth(model: Seq2Seq, source: Tensor, target: Tensor) -> list[Pair]:
    """Weights and gradients, with the modules' forward replaced by the reference."""
    attends: list[reference.MaterialisedAttention] = []

    def replace(module: nn.MultiheadAttention):
        def forward(q, k, v, attn_mask=None, key_padding_mask=None, **_):
            if attn_mask is not None and attn_mask.dtype != torch.bool:
                attn_mask = attn_mask < 0
            output, attend = reference.multi_head_attention(
                module, q, k, v, key_padding_mask, attn_mask
            )
            attends.append(attend)
            return output, None

        return forward

    modules = attention_modules(model)
    for module in modules:
        module.forward = replace(module)
    try:
        # Training mode without dropout keeps off the fused inference path.
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        score = model.train()(source, target)[:, 1]
    finally:
        model.eval()
        for module in modules:
            del module.forward
    weights = [attend.weights[0] for attend in attends]
    gradients = reference.weight_gradients(score, weights)
    return [(w.detach(), g) for w, g in zip(weights, gradients, strict=True)]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("lengths", [(5, 3), (4, 4), (1, 2)])
def test_encoder_and_decoder(lengths: tuple[int, int], signed: bool) -> None:
    torch.manual_seed(0)
    model = Seq2Seq().double().eval()
    source, target = (torch.randn(2, n, 8, dtype=torch.float64) for n in lengths)
    pairs = [mean_relevance(p, signed) for p in seq2seq_truth(model, source, target)]
    encoder, decoder = pairs[:2], pairs[2:]
    r_ii, r_tt = eye_like(encoder[0]), eye_like(decoder[0])
    r_ti = torch.zeros(2, lengths[1], lengths[0], dtype=torch.float64)
    for a in encoder:
        r_ii = r_ii + a @ r_ii
    for a_self, a_cross in zip(decoder[::2], decoder[1::2], strict=True):
        r_tt, r_ti = r_tt + a_self @ r_tt, r_ti + a_self @ r_ti  # rules 6 and 7
        of_t, of_i = normalised(r_tt, signed), normalised(r_ii, signed)
        r_ti = r_ti + of_t.mT @ a_cross @ of_i  # rule 10

    own, context = model.method(signed=signed).attribute((source, target), 1, query=-1)
    close(own, r_tt[:, -1])
    close(context, r_ti[:, -1])
    own, context = model.method(signed=signed).attribute((source, target), 1)
    close(own, r_tt.sum(1))
    close(context, r_ti.sum(1))
    # The rest of the model is the decoder.
    rest = AttentionRelevance(
        model,
        cross_layer=[b.multihead_attn for b in model.transformer.decoder.layers],
        context_layer=model.transformer.encoder,
        signed=signed,
    )
    for ours, theirs in zip(
        rest.attribute((source, target), 1), (own, context), strict=True
    ):
        close(ours, theirs)


class CoAttention(nn.Module):
    """Two sequences that attend to each other at once, then each to itself."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        names = ["x", "y", "x_to_y", "y_to_x"]
        self.attention = nn.ModuleDict(
            {name: nn.MultiheadAttention(8, 2, batch_first=True) for name in names}
        )
        if shared:
            self.attention["y_to_x"] = self.attention["x_to_y"]
        self.attend = lambda module, q, k: module(q, k, k, need_weights=False)[0]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        def attend(name: str, q: Tensor, k: Tensor) -> Tensor:
            return q + self.attend(self.attention[name], q, k).tanh()

        x, y = attend("x", x, x), attend("y", y, y)
        for _ in range(2):
            x, y = attend("x_to_y", x, y), attend("y_to_x", y, x)
            x, y = attend("x", x, x), attend("y", y, y)
        return x[:, 0].square() + y.square().mean(1)


@pytest.mark.parametrize("shared", [False, True])
def test_co_attention(shared: bool) -> None:
    torch.manual_seed(0)
    model = CoAttention(shared).double().eval()
    x, y = (torch.randn(2, n, 8, dtype=torch.float64) for n in (3, 4))
    plain = model.attend
    attends = []

    def materialised(module, q, k):
        output, attend = reference.multi_head_attention(module, q, k, k)
        attends.append(attend.weights[0])
        return output

    model.attend = materialised
    gradients = reference.weight_gradients(model(x, y)[:, 1], attends)
    model.attend = plain
    pairs = zip(attends, gradients, strict=True)
    maps = iter([mean_relevance((w.detach(), g)) for w, g in pairs])

    own = [eye_like(torch.zeros(2, n, n).double()) for n in (3, 4)]
    other = [torch.zeros(2, 3, 4).double(), torch.zeros(2, 4, 3).double()]

    def to_themselves() -> None:
        for i in (0, 1):
            a = next(maps)
            own[i], other[i] = own[i] + a @ own[i], other[i] + a @ other[i]

    to_themselves()
    for _ in range(2):
        added = []
        for i, j in ((0, 1), (1, 0)):
            a = next(maps)
            mixed = normalised(own[i], False).mT @ a @ normalised(own[j], False)
            added.append((mixed, a @ other[j]))  # rules 10 and 11
        for i, (mixed, more) in enumerate(added):
            other[i], own[i] = other[i] + mixed, own[i] + more
        to_themselves()

    modules = model.attention
    found = AttentionRelevance(
        model,
        modules["x"],
        cross_layer=modules["x_to_y"],
        context_layer=modules["y"],
        cross_back_layer=modules["y_to_x"],
    ).attribute((x, y), 1, query=0)
    close(found[0], own[0][:, 0])
    close(found[1], other[0][:, 0])


def test_bad_input() -> None:
    model, x = CrossAndSelf().eval(), (torch.randn(2, 3, 8), torch.randn(2, 5, 8))
    with pytest.raises(
        ValueError, match=r"Relevance.*'cross_attention' attends from 3"
    ):
        AttentionRelevance(model).attribute(x, 1)
    with pytest.raises(ValueError, match="pass cross_layer too"):
        AttentionRelevance(model, context_layer=model.self_attention)
    wrong = AttentionRelevance(
        model, model.cross_attention, cross_layer=model.self_attention
    )
    with pytest.raises(ValueError, match="does not fit what it was passed as"):
        wrong.attribute(x, 1)
    with pytest.raises(ValueError, match="The layer Linear was not called"):
        AttentionRelevance(model, cross_layer=nn.Linear(8, 8)).attribute(x, 1)

    co, alike = CoAttention(shared=True).eval(), (torch.randn(2, 3, 8),) * 2
    modules = co.attention
    method = AttentionRelevance(
        co,
        modules["x"],
        cross_layer=modules["x_to_y"],
        context_layer=modules["y"],
        cross_back_layer=modules["y_to_x"],
    )
    with pytest.raises(ValueError, match="direction is unknown"):
        method.attribute(alike, 1)


def test_layers_without_effect_count_nothing() -> None:
    class Reads(nn.Module):
        """The second sequence attends to itself once more, for nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.cross = nn.MultiheadAttention(8, 2, batch_first=True)
            self.after = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            result = self.cross(x, y, y)[0][:, 0]
            self.after(y, y, y)
            return result

    torch.manual_seed(0)
    model, x = Reads().eval(), (torch.randn(2, 3, 8), torch.randn(2, 5, 8))
    method = AttentionRelevance(
        model, model, cross_layer=model.cross, context_layer=model.after
    )
    with pytest.warns(UserWarning, match="'after'; they count as 0"):
        own, context = method.attribute(x, 1, query=0)
    torch.testing.assert_close(own, torch.eye(3)[:1].expand(2, 3))
    assert bool((context > 0).any())
