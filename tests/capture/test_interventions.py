"""What interventions see and change while a model runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_attngrad.capture._interventions import (
    Intervention,
    Operation,
    Scale,
    Together,
)
from captum_attngrad.capture._sites import FusedSite, SoftmaxSite, fused_site
from captum_attngrad.capture.options import CaptureOptions
from captum_attngrad.capture.recorder import Recorder


class Attention(nn.Module):
    """Fused attention, and then the same with a softmax."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.scaled_dot_product_attention(x, x, x)
        return (x @ x.mT).softmax(dim=-1) @ x


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.tanh()).sigmoid()


def run(model: Model, x: Tensor, intervention: Intervention) -> tuple[Tensor, Recorder]:
    options = CaptureOptions(intervention=intervention)
    recorder = Recorder([model.attention], model=model, options=options)
    with recorder:
        output = model(x)
    return output, recorder


class Names(Intervention):
    """Notes what it sees."""

    sees_operations = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []
        self.forward_passes: list[str] = []

    def begin(self) -> None:
        self.forward_passes.append("begin")

    def end(self) -> None:
        self.forward_passes.append("end")

    def operation(self, operation: Operation) -> Any:
        self.seen.append((operation.name, operation.recorded))
        return operation.run()


class Double(Names):
    """Doubles the results of tanh, twice where it is seen twice."""

    def operation(self, operation: Operation) -> Any:
        result = super().operation(operation)
        return 2 * result if operation.name == "tanh" else result


class Decompose(Names):
    """Writes a sigmoid with tanh."""

    def operation(self, operation: Operation) -> Any:
        if operation.name != "sigmoid":
            return super().operation(operation)
        with operation.visible():
            return (operation.args[0] / 2).tanh() / 2 + 0.5


X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(2, 3, 4)


def test_every_operation_but_the_sites_is_seen_once() -> None:
    names = Names()
    output, recorder = run(Model(), X, names)
    assert torch.equal(output, Model()(X))
    assert ("tanh", False) in names.seen
    assert ("sigmoid", False) in names.seen
    assert [each for each in names.seen if "matmul" in each[0]] == [
        ("matmul", True)
    ] * 2
    assert not {"softmax", "scaled_dot_product_attention"} & {n for n, _ in names.seen}
    assert [call.site_index for call in recorder.finish()] == [0, 1]
    assert names.forward_passes == ["begin", "end"]


def test_nothing_is_seen_after_the_forward_pass_nor_its_end_after_an_error() -> None:
    names = Names()
    with (
        pytest.raises(ZeroDivisionError),
        Recorder([], options=CaptureOptions(intervention=names)),
    ):
        _ = 1 / 0
    X.tanh()
    assert names.forward_passes == ["begin"]
    assert not [name for name, _ in names.seen if name == "tanh"]


def test_several_act_in_their_order() -> None:
    first, second = Double(), Double()
    output, _ = run(Model(), X, Together(first, second))
    expected = Model().attention(4 * X.tanh()).sigmoid()
    torch.testing.assert_close(output, expected)
    assert first.seen == second.seen


def test_operations_of_an_intervention_are_visible_to_it_and_not_recorded() -> None:
    names = Decompose()
    output, recorder = run(Model(), X, names)
    torch.testing.assert_close(output, Model()(X))
    assert [each for each in names.seen if each[0] == "tanh"] == [("tanh", False)] * 2
    assert len(recorder.finish()) == 2


def test_scaled_weights_from_the_definition() -> None:
    factors = {0: torch.tensor([0.5]), 1: torch.tensor([0.25])}
    output, _ = run(Model(), X, Together(Scale(factors, {}), Names()))
    x = X.tanh()
    x = 0.5 * ((x @ x.mT / 2).softmax(dim=-1) @ x)
    expected = (0.25 * (x @ x.mT).softmax(dim=-1) @ x).sigmoid()
    torch.testing.assert_close(output, expected)


class Replace(Intervention):
    def output(self, site: FusedSite) -> Tensor | None:
        return site.attend(site.value) + 1

    def replaced(self, site: SoftmaxSite) -> Tensor | None:
        return torch.eye(site.weights.shape[-1]).to(site.weights)


def test_replaced_attention_is_not_recorded() -> None:
    output, recorder = run(Model(), X, Replace())
    fused = F.scaled_dot_product_attention(X.tanh(), X.tanh(), X.tanh())
    torch.testing.assert_close(output, (fused + 1).sigmoid())
    assert len(recorder.finish()) == 0


def test_a_site_has_one_form_whatever_the_call() -> None:
    query = torch.randn(2, 4, 3, 5)
    key, value = torch.randn(2, 1, 2, 6, 5)
    options: dict[str, Any] = {"scale": 0.3}
    grouped = key.repeat_interleave(2, -3), value.repeat_interleave(2, -3)
    expected = F.scaled_dot_product_attention(query, *grouped, **options)
    site = fused_site(7, query, key, value, enable_gqa=True, **options)
    assert site is not None
    assert site.index == 7
    assert site.query.shape[:-2] == site.key.shape[:-2] == site.value.shape[:-2]
    torch.testing.assert_close(site.attend(site.value), expected)
