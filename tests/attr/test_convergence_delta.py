"""Both ways to a convergence delta, for every class that has one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Attribution

import captum_attngrad
from captum_attngrad import (
    AttentionGradient,
    IntegratedAttentionGradient,
    JointIntegratedGradients,
)
from tests.attr.models import Classifier, classifier, token_ids


def _classes() -> list[type]:
    found = (getattr(captum_attngrad, name) for name in captum_attngrad.__all__)
    return [c for c in found if isinstance(c, type) and issubclass(c, Attribution)]


def _instance(kind: type, model: Classifier, **options: Any) -> Any:
    if kind.__name__ in ("JointIntegratedGradients", "AttentionDeepLift"):
        options["embedding"] = model.embedding
    if kind.__name__ == "LLMAttentionGradient":
        return kind(AttentionGradient(model), object())
    return kind(model, **options)


def _with_delta() -> list[type]:
    model = classifier()
    found = []
    for kind in _classes():
        try:
            has = _instance(kind, model).has_convergence_delta()
        except NotImplementedError:  # Captum's, of what has no forward function
            has = False
        found += [kind] * has
    return found


def test_which_classes_have_one() -> None:
    assert _with_delta() == [IntegratedAttentionGradient, JointIntegratedGradients]


@pytest.mark.parametrize("loss", [None, F.cross_entropy], ids=["output", "loss"])
@pytest.mark.parametrize("kind", _with_delta())
@pytest.mark.parametrize("steps", [1, 3])
def test_both_deltas_agree(kind: type, steps: int, loss: Any) -> None:
    model, (ids, mask) = classifier(), token_ids()
    method = _instance(kind, model, loss_func=loss)
    target = [0, 1, 2, 0]
    takes_baselines = kind is JointIntegratedGradients
    for baselines in (None, 3, ids.flip(1), ids[:1]) if takes_baselines else (None,):
        start = {"baselines": baselines} if takes_baselines else {}
        scores, delta = method.attribute(
            ids,
            target=target,
            additional_forward_args=mask,
            n_steps=steps,
            return_convergence_delta=True,
            **start,
        )
        ends = (baselines, ids) if takes_baselines else (ids,)
        for given in (scores, (scores,)):
            again = method.compute_convergence_delta(given, *ends, target, mask)
            torch.testing.assert_close(again, delta, rtol=1e-9, atol=1e-9)
        assert delta.shape == (4,)
        assert steps > 1 or delta.abs().max() > 1e-6


@pytest.mark.parametrize("kind", _with_delta())
@pytest.mark.parametrize("given", [torch.zeros(1, 5), torch.tensor(0.0), None, (1, 2)])
def test_attributions_of_other_examples(kind: type, given: Any) -> None:
    model, (ids, _) = classifier(), token_ids()
    ends = (None, ids) if kind is JointIntegratedGradients else (ids,)
    with pytest.raises(
        ValueError, match=r"what attribute returned .* \(4, keys\), got"
    ):
        _instance(kind, model).compute_convergence_delta(given, *ends, 1)


@pytest.mark.parametrize("kind", [c for c in _classes() if c not in _with_delta()])
def test_classes_without_one_give_none(kind: type) -> None:
    """Captum would compare the scores with two points of its own."""
    model, (ids, _) = classifier(), token_ids()
    with pytest.raises((AttributeError, NotImplementedError)) as raised:
        _instance(kind, model).compute_convergence_delta(
            torch.zeros(4, 5), torch.zeros_like(ids), ids, 1
        )
    if issubclass(kind, AttentionGradient):
        assert "AttentionGradient has no convergence delta" in str(raised.value)
