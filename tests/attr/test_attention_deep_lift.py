"""DeepLIFT with held attention, against the slopes of its definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from captum_attngrad import AttentionDeepLift, JointIntegratedGradients, log_odds
from captum_attngrad.attr.path._multipliers import Secants
from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture.options import CaptureOptions
from captum_attngrad.capture.recorder import Recorder
from captum_attngrad.models import AttentionLSTMClassifier
from tests.attr.encoder import close
from tests.attr.surroundings import Replicated, state, unchanged

WORDS, WIDTH, HEADS = 11, 6, 2


class Block(nn.Module):
    """Every operation that has a slope: norm, attention, product, nonlinearity."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.norm, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        for norm in (self.norm, self.norm2):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.gate, self.up = nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 8)
        self.down = nn.Linear(8, WIDTH)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        split = self.qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        x = x + self.out(self.attend(q, k, v, mask).transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.gelu(self.gate(y)) * self.up(y))


class Reader(nn.Module):
    """Token ids to three logits, read from the mean of the tokens."""

    def __init__(self, layers: int = 2, fused: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList(Block(fused) for _ in range(layers))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
        x = self.embedding(ids)
        mask = None if tokens is None else tokens[:, None, None]
        for block in self.blocks:
            x = block(x, mask)
        kept = torch.ones_like(ids) if tokens is None else tokens
        x = (x * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True)
        return self.head(x.tanh())


class Runs:
    """A tensor of the baseline's run, of the input's, and of the affine model between
    them: where an operation bends, its slope takes its place."""

    def __init__(self, zero: Tensor, one: Tensor, bent: Tensor) -> None:
        self.zero, self.one, self.bent = zero, one, bent

    def affine(self, f: Callable[[Tensor], Tensor]) -> Runs:
        return Runs(f(self.zero), f(self.one), f(self.bent))

    def unary(self, f: Callable[[Tensor], Tensor]) -> Runs:
        zero, one = f(self.zero), f(self.one)
        slope = torch.where(
            self.one == self.zero,
            torch.zeros_like(one),  # nothing comes through in this position
            (one - zero) / (self.one - self.zero),
        )
        return Runs(zero, one, zero + slope * (self.bent - self.zero))

    def times(self, other: Runs) -> Runs:
        mean, mean2 = (self.one + self.zero) / 2, (other.one + other.zero) / 2
        change = (self.bent - self.zero) * mean2 + mean * (other.bent - other.zero)
        zero = self.zero * other.zero
        return Runs(zero, self.one * other.one, zero + change)

    def plus(self, other: Runs) -> Runs:
        return Runs(
            self.zero + other.zero, self.one + other.one, self.bent + other.bent
        )


def layer_norm(x: Runs, norm: nn.LayerNorm) -> Runs:
    centered = x.affine(lambda t: t - t.mean(-1, keepdim=True))
    variance = centered.unary(lambda t: t**2).affine(lambda t: t.mean(-1, keepdim=True))
    scale = variance.unary(lambda t: 1 / (t + norm.eps).sqrt())
    return centered.times(scale).affine(lambda t: t * norm.weight + norm.bias)


def block_runs(block: Block, x: Runs, mask: Tensor | None) -> Runs:
    normed = layer_norm(x, block.norm)

    def weights(t: Tensor) -> Tensor:
        q, k, _ = block.qkv(t).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1)

    def values(t: Tensor) -> Tensor:
        return block.qkv(t).unflatten(-1, (3, HEADS, -1))[:, :, 2]

    def attend(a: Tensor, t: Tensor) -> Tensor:
        output = torch.einsum("bhqk,bkhd->bqhd", a, values(t)).flatten(2)
        return block.out(output)

    one, zero = weights(normed.one), weights(normed.zero)
    attended = Runs(
        attend(zero, normed.zero),
        attend(one, normed.one),
        attend((one + zero) / 2, normed.bent),
    )
    x = x.plus(attended)
    y = layer_norm(x, block.norm2)
    gated = y.affine(block.gate).unary(F.gelu).times(y.affine(block.up))
    return x.plus(gated.affine(block.down))


@torch.no_grad()
def definition(
    model: Reader, ids: Tensor, baselines: Tensor, tokens: Tensor | None, target: int
) -> Tensor:
    """The change of the affine model's output when one token alone is exchanged."""
    one, zero = model.embedding(ids), model.embedding(baselines)
    mask = None if tokens is None else tokens[:, None, None]
    kept = torch.ones_like(ids) if tokens is None else tokens

    def score(bent: Tensor) -> Tensor:
        x = Runs(zero, one, bent)
        for block in model.blocks:
            x = block_runs(block, x, mask)
        x = x.affine(
            lambda t: (t * kept.unsqueeze(-1)).sum(1) / kept.sum(1, keepdim=True)
        )
        return x.unary(torch.tanh).affine(model.head).bent[:, target]

    columns = []
    for token in range(ids.shape[1]):
        bent = zero.clone()
        bent[:, token] = one[:, token]
        columns.append(score(bent) - score(zero))
    return torch.stack(columns, dim=1)


@st.composite
def readers(draw: st.DrawFn):
    torch.manual_seed(draw(st.integers(0, 2**16)))
    model = Reader(draw(st.integers(1, 3)), draw(st.booleans())).double().eval()
    model.requires_grad_(draw(st.booleans()))
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    ids = torch.randint(1, WORDS, (batch, length))
    tokens = None
    if draw(st.booleans()):
        lengths = torch.tensor([draw(st.integers(1, length)) for _ in range(batch)])
        tokens = torch.arange(length) < lengths[:, None]
    return model, ids, tokens


@settings(max_examples=60)
@given(readers())
def test_equals_the_definition(case) -> None:
    model, ids, tokens = case
    expected = definition(model, ids, torch.zeros_like(ids), tokens, 1)
    method = AttentionDeepLift(model, embedding=model.embedding)
    found = method.attribute(ids, 0, 1, tokens, joint_steps=0)
    close(found, expected)


def example(**options) -> tuple[Reader, Tensor]:
    torch.manual_seed(3)
    model = Reader(**options).double().eval()
    return model, torch.randint(1, WORDS, (2, 6))


@pytest.mark.parametrize("fused", [True, False])
def test_complete_where_attention_does_not_change(fused: bool) -> None:
    model, ids = example(fused=fused)
    with torch.no_grad():
        for block in model.blocks:
            block.qkv.weight[:WIDTH] = 0  # no query: all weights are equal
            block.qkv.bias[:WIDTH] = 0
        due = (model(ids) - model(torch.zeros_like(ids)))[:, 2]
    method = AttentionDeepLift(model, embedding=model.embedding)
    close(method.attribute(ids, 0, 2, joint_steps=0).sum(1), due)


def test_attention_that_changes_is_left_out_of_the_slopes() -> None:
    model, ids = example()
    method = AttentionDeepLift(model, embedding=model.embedding)
    with torch.no_grad():
        due = (model(ids) - model(torch.zeros_like(ids)))[:, 2]
    sums = method.attribute(ids, 0, 2, joint_steps=0).sum(1)
    assert (sums - due).abs().max() > 1e-3


def test_mean_with_joint_integrated_gradients() -> None:
    model, ids = example()
    method = AttentionDeepLift(model, embedding=model.embedding)
    joint = JointIntegratedGradients(model, embedding=model.embedding)
    slopes = method.attribute(ids, 0, 1, joint_steps=0)
    for steps in (1, 2, 5):
        expected = (slopes + joint.attribute(ids, 0, 1, n_steps=steps)) / 2
        close(method.attribute(ids, 0, 1, joint_steps=steps), expected)
    close(method.attribute(ids, 0, 1), slopes)  # the default


def test_one_layer_with_a_nonlinearity_that_captum_knows() -> None:
    """Without attention's part it is Captum's DeepLift, from the embeddings up."""

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.last = nn.Linear(4, 9), nn.ELU(), nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.act(self.first(x))).sum(1)

    class Attending(nn.Module):
        def __init__(self, bag: Bag) -> None:
            super().__init__()
            self.embedding, self.bag = nn.Embedding(WORDS, 4), bag

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embedding(ids)
            same = torch.zeros_like(x)
            # Uniform attention, that adds the mean of the tokens.
            return self.bag(x + F.scaled_dot_product_attention(same, same, x))

    torch.manual_seed(0)
    model = Attending(Bag()).double()
    ids = torch.randint(1, WORDS, (2, 5))
    text, masked = (model.embedding(i).detach() for i in (ids, torch.zeros_like(ids)))
    mixed = [x + x.mean(1, keepdim=True) for x in (text, masked)]
    captum = DeepLift(model.bag).attribute(mixed[0], mixed[1], target=1)
    multiplier = captum / (mixed[0] - mixed[1])
    through = multiplier + multiplier.mean(1, keepdim=True)
    method = AttentionDeepLift(model, embedding=model.embedding)
    found = method.attribute(ids, 0, 1, joint_steps=0)
    torch.testing.assert_close(
        found, (through * (text - masked)).sum(-1), rtol=1e-5, atol=1e-7
    )


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, True),
    "silu in place": lambda x: F.silu(x, inplace=True),
    "elu": lambda x: F.elu(x, 0.7, True),
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "sigmoid": torch.sigmoid,
    "tanh": Tensor.tanh,
    "exp": torch.exp,
    "softplus": F.softplus,
    "log sigmoid": lambda x: F.logsigmoid(input=x),
    "cube": lambda x: x**3,
    "square": lambda x: x.pow(2),
    "rsqrt": lambda x: (x.square() + 1e-6).rsqrt(),
    "reciprocal": lambda x: 1 / (x.square() + 0.1),
    "log": lambda x: (x.square() + 0.1).log(),
}


def acting(intervention: Intervention) -> Recorder:
    return Recorder([], options=CaptureOptions(intervention=intervention))


def slopes(f: Callable[[Tensor], Tensor], one: Tensor, zero: Tensor) -> Tensor:
    secants = Secants()
    with acting(secants.on_baselines()):
        f(zero.clone())
    with acting(secants.on_inputs()):
        f(one.clone())
    with acting(secants.as_derivatives()):
        leaf = one.clone().requires_grad_()
        (found,) = torch.autograd.grad(f(leaf.clone()).sum(), leaf)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("apart", [3.0, 1e-1, 1e-3, 1e-5, 1e-9, 0.0])
def test_slopes_of_functions(name: str, apart: float) -> None:
    """In float32, against differences in float64 that lose nothing."""
    f = FUNCTIONS[name]
    zero = torch.linspace(-2.9, 3.1, 40)
    one = zero + apart * torch.linspace(-1, 1, 40).roll(7)
    found = slopes(f, one, zero).double()
    a, b = one.double(), zero.double()
    a = torch.where((a - b).abs() < 1e-6, b + 1e-6, a)
    expected = (f(a.clone()) - f(b.clone())) / (a - b)
    # Where a function bends within the gap, the nearby derivative is not the slope.
    kink = (a.sign() != b.sign()) & ("relu" in name or name == "elu")
    error = (found - expected).abs() / (1 + expected.abs())
    assert error[~kink].max() < 2e-4


def test_products_and_quotients() -> None:
    torch.manual_seed(0)
    one, zero = torch.randn(2, 3, 4, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        a, b = x.tanh(), x.exp() + 1
        c = torch.mul(input=a, other=b) + a.mul(other=b).square()
        return c / torch.true_divide(b, a.square() + 1) * 2 / 3

    found = slopes(f, one, zero)
    close(found * (one - zero), f(one) - f(zero))


def test_activations_in_place_and_sums_in_place() -> None:
    model, ids = example()

    class InPlace(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.model, self.in_place = model, in_place
            self.act = nn.SiLU(inplace=in_place)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.model.embedding(ids)
            y = x * x
            if self.in_place:
                y += 1
            else:
                y = y + 1
            return self.model.head(self.model.blocks[0](self.act(y), None)).sum(1)

    found, expected = (
        AttentionDeepLift(InPlace(flag), embedding=model.embedding).attribute(ids, 0, 1)
        for flag in (True, False)
    )
    close(found, expected)


def test_only_some_layers_are_held() -> None:
    model, ids = example()
    of = [
        AttentionDeepLift(model, layer, embedding=model.embedding).attribute(
            ids, 0, 1, joint_steps=0
        )
        for layer in (None, list(model.blocks), model.blocks[0], model.blocks[1])
    ]
    close(of[0], of[1])
    assert not torch.allclose(of[0], of[2])
    assert not torch.allclose(of[0], of[3])


def test_state_is_restored_and_tuples_come_back() -> None:
    model, ids = example()
    model.train()
    before = state(model)
    method = AttentionDeepLift(model, embedding=model.embedding)
    (scores,) = method.attribute((ids,), 0, target=0)
    with torch.no_grad():
        close(method.attribute(ids, 0, target=0), scores)
    with torch.inference_mode():
        close(method.attribute(ids, 0, target=0).clone(), scores)
    unchanged(before, model)
    assert not scores.requires_grad


def test_half_precision() -> None:
    model, ids = example()
    exact = AttentionDeepLift(model, embedding=model.embedding).attribute(ids, 0, 1)
    model.bfloat16()
    found = AttentionDeepLift(model, embedding=model.embedding).attribute(ids, 0, 1)
    error = (found.double() - exact).abs().max()
    assert error < 0.1 * exact.abs().max()


def test_recurrent_model() -> None:
    """Complete but for the attention's share, and 0 for padding."""
    torch.manual_seed(0)
    model = AttentionLSTMClassifier(20, 2).double().eval()
    ids = torch.randint(1, 20, (2, 7))
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    method = AttentionDeepLift(
        lambda ids, mask: log_odds(model(ids, mask)),
        model.attention,
        embedding=model.embedding,
    )
    scores = method.attribute(ids, 0, 1, mask)
    assert scores.shape == (2, 7)
    assert (scores[1, 4:] == 0).all()
    nn.init.zeros_(model.attention.score.weight)  # all weights are equal now
    with torch.no_grad():
        due = log_odds(model(ids, mask)) - log_odds(model(torch.zeros_like(ids), mask))
    close(method.attribute(ids, 0, 1, mask, joint_steps=0).sum(1), due[:, 1])


class Deciding(Reader):
    """Does something else where the text is all baseline."""

    def forward(self, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
        if not ids.any():
            return super().forward(ids).tanh()
        return super().forward(ids)


def test_other_operations_on_the_baselines() -> None:
    model = Deciding().double()
    method = AttentionDeepLift(model, embedding=model.embedding)
    with pytest.raises(RuntimeError, match="'its end' on the inputs and to 'tanh'"):
        method.attribute(torch.ones(1, 4, dtype=torch.long), 0, 1)
    assert torch.overrides._get_current_function_mode() is None


def test_other_attention_calls_on_the_baselines() -> None:
    class Again(Reader):
        def forward(self, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
            x = self.embedding(ids)
            for _ in range(2 if ids.any() else 1):
                x = x + F.scaled_dot_product_attention(x, x, x)
            return self.head(x).sum(1)

    model = Again().double()
    method = AttentionDeepLift(model, embedding=model.embedding)
    with pytest.raises(RuntimeError, match="2 attention calls on the inputs and 1 on"):
        method.attribute(torch.ones(1, 4, dtype=torch.long), 0, 1)


def test_kernels_whose_weights_cannot_be_held() -> None:
    flex = pytest.importorskip("torch.nn.attention.flex_attention")

    class Flexible(Reader):
        def forward(self, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
            x = self.embedding(ids).unsqueeze(1)
            return self.head(flex.flex_attention(x, x, x).squeeze(1)).sum(1)

    model = Flexible()
    method = AttentionDeepLift(model, embedding=model.embedding)
    with pytest.raises(NotImplementedError, match="attends with attention kernel"):
        method.attribute(torch.ones(1, 4, dtype=torch.long), 0, 1)


def test_score_without_the_embeddings() -> None:
    class Detached(Reader):
        def forward(self, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
            x = self.embedding(ids).detach()
            return self.head(F.scaled_dot_product_attention(x, x, x)).sum(1)

    model = Detached().requires_grad_(False)
    method = AttentionDeepLift(model, embedding=model.embedding)
    with pytest.raises(RuntimeError, match="does not depend on the embeddings"):
        method.attribute(torch.ones(1, 4, dtype=torch.long), 0, 1)


def test_bad_input() -> None:
    model, ids = example()
    method = AttentionDeepLift(model, embedding=model.embedding)
    for steps in (-1, 1.5):
        with pytest.raises(ValueError, match="joint_steps="):
            method.attribute(ids, 0, 1, joint_steps=steps)
    with pytest.raises(TypeError, match="'embedding'"):
        AttentionDeepLift(model, embedding="embedding")
    with pytest.raises(ValueError, match="Identity was called 0 times"):
        AttentionDeepLift(model, embedding=nn.Identity()).attribute(ids, 0, 1)
    with pytest.raises((AssertionError, ValueError, RuntimeError), match="shape"):
        method.attribute(ids, ids[:, :4], 1)
    with pytest.raises((AssertionError, IndexError, ValueError)):
        method.attribute(ids, 0, 9)
    with pytest.raises(NotImplementedError, match="several devices"):
        AttentionDeepLift(
            Replicated(model, 2), model, embedding=model.embedding
        ).attribute(ids, 0, 0)
    assert not model.embedding._forward_hooks


FAMILIES = {
    "bert": ("BertConfig", {}),
    "roberta": ("RobertaConfig", {}),
    "distilbert": ("DistilBertConfig", {"dim": 16, "hidden_dim": 20, "n_heads": 4}),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_head": 4, "n_layer": 2}),
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "modernbert": ("ModernBertConfig", {"global_attn_every_n_layers": 2}),
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_face_is_complete_where_attention_does_not_change(
    family: str, attention: str
) -> None:
    transformers = pytest.importorskip("transformers")
    kind, options = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(
        **{
            "vocab_size": 30,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 20,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **options,
        }
    )
    config._attn_implementation = attention
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from the small initial weights
            parameter.mul_(4) if parameter.dim() > 1 else None
        for name, module in model.named_modules():
            last = name.rpartition(".")[2]
            if last in ("query", "q_lin", "q_proj"):
                module.weight.zero_()
                if module.bias is not None:
                    module.bias.zero_()
            elif last == "c_attn":  # transposed, queries first
                module.weight[:, :16] = 0
                module.bias[:16] = 0
            elif last == "Wqkv":
                module.weight[:16] = 0
    ids = torch.randint(3, 30, (2, 7))
    baselines = torch.full_like(ids, 5)
    with torch.no_grad():
        due = (model(ids).logits - model(baselines).logits)[:, 1]
    assert due.abs().min() > 1e-3
    method = AttentionDeepLift(
        lambda ids: model(ids).logits, model, embedding=model.get_input_embeddings()
    )
    found = method.attribute(ids, baselines, 1, joint_steps=0).sum(1)
    # Llama's norm works in float32 whatever the model's dtype is.
    torch.testing.assert_close(found, due, rtol=1e-6, atol=1e-6)


RECURRENT = [
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "bias": False}),
    ("LSTM", {"proj_size": 2, "bidirectional": True, "num_layers": 2}),
    ("LSTM", {"proj_size": 2, "bias": False}),
    ("GRU", {"num_layers": 2, "bidirectional": True}),
    ("GRU", {"bias": False}),
    ("RNN", {"nonlinearity": "tanh", "bidirectional": True}),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2, "dropout": 0.5}),
]


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("kind", "options"), RECURRENT)
def test_recurrent_networks_written_out(
    kind: str, options: dict, batch_first: bool
) -> None:
    """The same numbers as torch's kernels, and complete slopes."""
    torch.manual_seed(0)
    network = getattr(nn, kind)(5, 4, batch_first=batch_first, **options)
    network = network.double().eval()
    one, zero = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    if not batch_first:
        one, zero = one.transpose(0, 1), zero.transpose(0, 1)
    lengths = torch.tensor([4, 6, 2])

    def packed(x: Tensor) -> Tensor:
        several = pack_padded_sequence(
            x, lengths, batch_first=batch_first, enforce_sorted=False
        )
        output, last = network(several)
        states = last if isinstance(last, tuple) else (last,)
        return torch.cat([output.data.flatten(), *(s.flatten() for s in states)])

    def padded(x: Tensor) -> Tensor:
        output, last = network(x)
        states = last if isinstance(last, tuple) else (last,)
        return torch.cat([output.flatten(), *(s.flatten() for s in states)])

    for run in (packed, padded):
        with acting(Secants().on_baselines()):
            opened = run(one)
        close(opened, run(one))
        changes = slopes(run, one, zero) * (one - zero)
        close(changes.sum(), (run(one) - run(zero)).sum())


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_cells(kind: str, bias: bool) -> None:
    torch.manual_seed(0)
    cell = getattr(nn, kind)(5, 4, bias=bias).double()
    one, zero = torch.randn(2, 3, 5, dtype=torch.float64)

    def run(x: Tensor) -> Tensor:
        state = cell(x)
        state = cell(x.flip(1), state)
        return torch.cat(state) if isinstance(state, tuple) else state

    changes = slopes(run, one, zero) * (one - zero)
    close(changes.sum(), (run(one) - run(zero)).sum())


def test_recurrent_operations_called_by_keyword_keep_their_derivative() -> None:
    torch.manual_seed(0)
    network = nn.LSTM(5, 4, batch_first=True).double()
    one, zero = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    start = (torch.zeros(1, 3, 4, dtype=torch.float64),) * 2

    def run(x: Tensor) -> Tensor:
        return torch.lstm(
            x,
            start,
            network._flat_weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=False,
            bidirectional=False,
            batch_first=True,
        )[0]

    with acting(Secants().on_baselines()):
        close(run(one), network(one)[0])
    leaf = one.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(run(leaf).sum(), leaf)
    close(slopes(run, one, zero), derivative)
