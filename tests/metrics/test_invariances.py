"""Changes of a model that leave its function alone: they do, and they change it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad.metrics import NotApplicableError
from captum_attngrad.metrics._parameters import share_unchanged, swapped_parameters
from captum_attngrad.metrics.resilience.input_shift import shift_inputs
from captum_attngrad.metrics.resilience.invariances import (
    INVARIANT_CHANGES,
    add_key_constant,
    add_value_constant,
    change_value_basis,
    permute_units,
)
from captum_attngrad.models import AttentionLSTMClassifier

IDS = torch.tensor([[5, 6, 7, 8, 9, 3], [4, 3, 2, 0, 0, 0]])
MASK = IDS != 0


class Multihead(nn.Module):
    """Embedding, attention, mean, linear; nothing is zero and nothing is alike."""

    def __init__(self, **arguments: object) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(20, 12)
        self.attention = nn.MultiheadAttention(
            12,
            3,
            batch_first=True,
            **arguments,
        )
        self.classifier = nn.Linear(12, 3)
        for parameter in self.attention.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(ids)
        y, _ = self.attention(x, x, x, key_padding_mask=~mask)
        mask = mask.unsqueeze(2)
        logits: Tensor = self.classifier((y * mask).sum(dim=1) / mask.sum(dim=1))
        return logits


def lstm() -> AttentionLSTMClassifier:
    torch.manual_seed(4)
    model = AttentionLSTMClassifier(20, embedding_dim=6, hidden_size=5)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def transformer() -> nn.Module:
    torch.manual_seed(5)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 12)
            layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.classifier = nn.Linear(12, 2)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            y = self.encoder(self.embedding(ids), src_key_padding_mask=~mask)
            logits: Tensor = self.classifier(y[:, 0])
            return logits

    return Classifier().eval()


def hugging_face(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(6)
    if kind == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=20, dim=12, n_heads=3, n_layers=2, hidden_dim=16, pad_token_id=0
        )
    else:
        config = {
            "bert": transformers.BertConfig,
            "roberta": transformers.RobertaConfig,
            "electra": transformers.ElectraConfig,
        }[kind](
            vocab_size=20,
            hidden_size=12,
            num_attention_heads=3,
            num_hidden_layers=2,
            intermediate_size=16,
            pad_token_id=0,
        )
    auto = transformers.AutoModelForSequenceClassification
    model: nn.Module = auto.from_config(config)
    for name, parameter in model.named_parameters():
        if "LayerNorm" not in name and "layer_norm" not in name:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def logits_of(model: nn.Module) -> Tensor:
    with torch.no_grad():
        output = model(IDS, MASK)
    return output if isinstance(output, Tensor) else output.logits


MODELS: dict[str, Callable[[], nn.Module]] = {
    "multihead": lambda: Multihead().eval(),
    "multihead, keys and values of other sizes": lambda: Multihead(
        kdim=12, vdim=12
    ).eval(),
    "transformer": transformer,
    "lstm": lstm,
    **{
        kind: lambda kind=kind: hugging_face(kind)  # type: ignore[misc]
        for kind in ("bert", "roberta", "electra", "distilbert")
    },
}
DOES_NOT_APPLY = {
    ("value_constant", "lstm"),
    ("input_shift", "multihead"),  # unless told which layer follows
    ("input_shift", "multihead, keys and values of other sizes"),
    ("input_shift", "transformer"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("change", INVARIANT_CHANGES)
def test_function_stays_and_parameters_move(change: str, name: str) -> None:
    model = MODELS[name]().double()
    before = logits_of(model)
    own = {key: value.clone() for key, value in model.state_dict().items()}
    if (change, name) in DOES_NOT_APPLY:
        with pytest.raises(NotApplicableError, match=change):
            INVARIANT_CHANGES[change](model, 0)
        return
    changed = INVARIANT_CHANGES[change](model, 0)
    torch.testing.assert_close(logits_of(changed), before, rtol=1e-9, atol=1e-9)
    for key, value in model.state_dict().items():
        assert torch.equal(value, own[key])
    theirs = changed.state_dict()
    moved = [
        key
        for key, value in theirs.items()
        if key not in own or not own[key].equal(value)
    ]
    assert moved
    # Undoing one of the moves changes the function, so each was needed. Others belong
    # to parts that nothing reads, or cancel on their own as keys do.
    if change != "key_constant" and not (change == "input_shift" and len(moved) == 1):
        difference = 0.0
        for key in moved:
            changed.load_state_dict({**theirs, key: own[key]})
            difference = max(
                difference, float((logits_of(changed) - before).abs().max())
            )
        assert difference > 1e-3


@pytest.mark.parametrize("name", ["multihead", "lstm", "bert"])
def test_seeds_give_other_changes(name: str) -> None:
    model = MODELS[name]()
    for change in ("value_basis", "permutation"):
        states = [
            torch.cat(
                [
                    p.flatten()
                    for p in INVARIANT_CHANGES[change](model, seed).parameters()
                ]
            )
            for seed in (0, 0, 1, 2, 3)
        ]
        assert torch.equal(states[0], states[1])
        assert any(not torch.equal(states[0], other) for other in states[2:])


def test_shift_of_keys_is_what_it_says() -> None:
    model = Multihead().eval()
    changed = add_key_constant(model)
    moved = changed.attention.in_proj_bias - model.attention.in_proj_bias  # type: ignore[union-attr,operator]
    assert torch.equal(moved[:12], torch.zeros(12))
    assert bool((moved[12:24] != 0).all())
    assert torch.equal(moved[24:], torch.zeros(12))


def test_values_move_and_bias_takes_it_back() -> None:
    model = Multihead().eval()
    changed = add_value_constant(model, scale=2.0)
    constant = (changed.attention.in_proj_bias - model.attention.in_proj_bias)[24:]  # type: ignore[union-attr,operator]
    weight = model.attention.out_proj.weight
    bias = model.attention.out_proj.bias - changed.attention.out_proj.bias  # type: ignore[union-attr,operator]
    torch.testing.assert_close(bias, weight @ constant, rtol=1e-5, atol=1e-5)
    assert constant.abs().max().item() > 0.5


def test_input_shift_with_the_layers_named() -> None:
    for model in (Multihead().eval().double(), Multihead(bias=True).eval().double()):
        changed = shift_inputs(
            model, 0, 1.0, embedding=model.embedding, next_layer=model.attention
        )
        torch.testing.assert_close(
            logits_of(changed), logits_of(model), rtol=1e-9, atol=1e-9
        )
        moved = changed.get_parameter("embedding.weight") - model.embedding.weight
        torch.testing.assert_close(moved, moved[:1].expand_as(moved))
        assert moved.std().item() > 0.1


def test_input_shift_before_a_linear_layer_and_a_gru() -> None:
    class Mean(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 4)
            self.layer = layer

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            out = self.layer(self.embedding(ids))
            out = out[0] if isinstance(out, tuple) else out
            result: Tensor = out.tanh().mean(dim=1)
            return result

    for layer in (nn.Linear(4, 2), nn.GRU(4, 2), nn.RNN(4, 2, bidirectional=True)):
        model = Mean(layer).double()
        changed = shift_inputs(model, embedding=model.embedding, next_layer=layer)
        torch.testing.assert_close(logits_of(changed), logits_of(model))
        assert not torch.equal(
            changed.get_parameter("embedding.weight"), model.embedding.weight
        )
    for other in (nn.Linear(4, 2, bias=False), nn.GRU(4, 2, bias=False), nn.ReLU()):
        model = Mean(other)
        with pytest.raises(NotApplicableError, match="follows the embedding"):
            shift_inputs(model, embedding=model.embedding, next_layer=other)


def test_what_does_not_apply_is_named() -> None:
    plain = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    for change in (
        add_key_constant,
        add_value_constant,
        change_value_basis,
        permute_units,
    ):
        with pytest.raises(NotApplicableError, match="Sequential has no attention"):
            change(plain)
    with pytest.raises(NotApplicableError, match="not known which layer follows"):
        shift_inputs(plain)
    for change in (add_key_constant, add_value_constant):
        with pytest.raises(NotApplicableError, match="'attention' has no bias"):
            change(Multihead(bias=False))
    with pytest.raises(NotApplicableError, match="a single head"):
        permute_units(nn.MultiheadAttention(4, 1))
    with pytest.raises(NotApplicableError, match="add_bias_kv"):
        add_key_constant(Multihead(add_bias_kv=True))
    with pytest.raises(ValueError, match="both embedding and next_layer"):
        shift_inputs(plain, embedding=plain[0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Linear is not part of Sequential"):
        shift_inputs(plain, embedding=plain[0], next_layer=nn.Linear(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["multihead", "lstm", "bert"])
def test_borrowed_parameters_are_given_back(name: str) -> None:
    model = MODELS[name]()
    before = logits_of(model)
    own = {key: value.clone() for key, value in model.state_dict().items()}
    identities = [id(parameter) for parameter in model.parameters()]
    changed = change_value_basis(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.1)
    other = logits_of(changed)
    assert not torch.allclose(other, before)
    with swapped_parameters(model, changed):
        torch.testing.assert_close(logits_of(model), other)
    assert torch.equal(logits_of(model), before)
    with pytest.raises(KeyError), swapped_parameters(model, changed):
        raise KeyError
    assert torch.equal(logits_of(model), before)
    assert [id(parameter) for parameter in model.parameters()] == identities
    for key, value in model.state_dict().items():
        assert torch.equal(value, own[key])


def test_copies_to_borrow_from_share_what_did_not_change() -> None:
    model = lstm()
    before = logits_of(model)
    changed = shift_inputs(model, scale=3.0)
    expected = dict(changed.state_dict())
    share_unchanged(model, changed)
    shared = [
        name
        for name, parameter in changed.named_parameters()
        if parameter is model.get_parameter(name)
    ]
    assert "classifier.weight" in shared
    assert "embedding.weight" not in shared
    with swapped_parameters(model, changed):
        for key, value in model.state_dict().items():
            assert torch.equal(value, expected[key])
    assert torch.equal(logits_of(model), before)


def test_added_parameter_is_borrowed_and_taken_away() -> None:
    model = lstm()
    changed = add_key_constant(model)
    with swapped_parameters(model, changed):
        assert model.attention.score.bias is not None
    assert model.attention.score.bias is None


def test_frozen_parameters_stay_frozen() -> None:
    model = lstm().requires_grad_(False)
    with swapped_parameters(model, change_value_basis(model)):
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_another_model_has_nothing_to_lend() -> None:
    with (
        pytest.raises(ValueError, match="differs in shape"),
        swapped_parameters(nn.Linear(2, 2), nn.Linear(2, 3)),
    ):
        pass
