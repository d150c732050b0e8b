"""Threads that share a model: some explain it, some only predict with it."""

from __future__ import annotations

import contextlib
import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad import (
    AttentionDeepLift,
    AttentionGradient,
    AttentionRelevance,
    AttentionRollout,
    AttentionWeights,
    IntegratedAttentionGradient,
    JointIntegratedGradients,
    LayerAttentionGradient,
    LLMAttentionGradient,
    SequenceAttentionGradient,
    capture_attention,
    find_attention_layers,
)
from captum_attngrad.capture._surroundings.compiler import uncompiled_code
from tests.attr.language_models import WORDS, WordTokenizer
from tests.attr.surroundings import Replicated, state, unchanged

ROUNDS, EXPLAINING, SERVING = 200, 4, 2
WIDTH = 8


class LanguageModel(nn.Module):
    """Its layers can take torch's fused inference path, and it can be told how many
    logits to compute: what one thread asks for must not reach another."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(WIDTH, len(WORDS))

    def forward(self, ids: Tensor, logits_to_keep: int = 0) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        hidden = self.body(self.embedding(ids), mask=causal, is_causal=True)
        return self.head(hidden[:, -logits_to_keep:])


class Last(nn.Module):
    """The logits of the token after the text."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids)[:, -1]


def language_model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel().eval()


IDS = torch.arange(2, 12).view(2, 5)
Explain = Callable[[LanguageModel], Any]


def _of_last(kind: type, **options: Any) -> Explain:
    return lambda model: kind(Last(model)).attribute(IDS, target=3, **options)


def _weights(model: LanguageModel) -> Any:
    return AttentionWeights(Last(model)).attribute(IDS)


def _rollout(model: LanguageModel) -> Any:
    return AttentionRollout(Last(model)).attribute(IDS)


def _joint(model: LanguageModel) -> Any:
    method = JointIntegratedGradients(Last(model), embedding=model.embedding)
    return method.attribute(IDS, torch.zeros_like(IDS), target=3, n_steps=2)


def _deep_lift(model: LanguageModel) -> Any:
    method = AttentionDeepLift(Last(model), embedding=model.embedding)
    return method.attribute(IDS, torch.zeros_like(IDS), target=3, joint_steps=0)


def _sequence(model: LanguageModel) -> Any:
    return SequenceAttentionGradient(model).attribute(IDS, IDS.roll(-1, 1))


def _llm(model: LanguageModel) -> Any:
    method = LLMAttentionGradient(AttentionGradient(model), WordTokenizer())
    return method.attribute("the red cat", "sat on").token_attr


def _captured(model: LanguageModel) -> Any:
    with capture_attention(model) as record:
        output = model(IDS)
    record.compute_gradients(output[:, -1, 3])
    assert len(find_attention_layers(model, IDS)) == 1
    return record[0].gradient()


EXPLANATIONS: dict[str, Explain] = {
    "AttentionGradient": _of_last(AttentionGradient),
    "LayerAttentionGradient": _of_last(LayerAttentionGradient),
    "AttentionWeights": _weights,
    "AttentionRollout": _rollout,
    "AttentionRelevance": _of_last(AttentionRelevance),
    "IntegratedAttentionGradient": _of_last(IntegratedAttentionGradient, n_steps=2),
    "JointIntegratedGradients": _joint,
    "AttentionDeepLift": _deep_lift,
    "SequenceAttentionGradient": _sequence,
    "LLMAttentionGradient": _llm,
    "capture_attention": _captured,
}


class Threads:
    """Runs functions in threads and raises here what one of them raised."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, function: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                function()
            except BaseException as error:
                self._errors.append(error)
                self.stop.set()

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        return self._threads[-1]

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]


@contextlib.contextmanager
def serving(model: LanguageModel) -> Iterator[Threads]:
    """Threads that predict while the block runs; every prediction is checked."""
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        vectors = model.embedding(IDS)

    def predict() -> tuple[Tensor, Tensor]:
        # The second goes through nested tensors.
        return model(IDS), model.body(vectors, src_key_padding_mask=padding)

    threads = Threads()
    for number in range(SERVING):
        mode = torch.no_grad if number % 2 == 0 else torch.inference_mode
        with mode():
            truth = predict()

        def serve(mode: Any = mode, truth: tuple[Tensor, Tensor] = truth) -> None:
            with mode():
                predictions = 0
                while not threads.stop.is_set() or not predictions:
                    found = predict()
                    predictions += 1
                    torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-6)
                    assert not any(tensor.requires_grad for tensor in found)
                    assert not torch.overrides._get_current_function_mode_stack()
                    assert not torch.is_grad_enabled()
                    assert torch.backends.mha.get_fastpath_enabled()

        threads.start(serve)
    try:
        yield threads
    finally:
        threads.join()


def same(found: Any, truth: Any) -> None:
    if isinstance(truth, Tensor):
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-7)
    else:
        assert len(found) == len(truth)
        for one, other in zip(found, truth, strict=True):
            same(one, other)


@pytest.fixture
def _switching_often() -> Iterator[None]:
    """Python changes threads every 20 microseconds, not every 5 milliseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_switching_often")
@pytest.mark.parametrize("name", EXPLANATIONS)
def test_explaining_and_serving_threads(name: str) -> None:
    explain, model = EXPLANATIONS[name], language_model()
    truth = explain(model)
    before = state(model)

    def explain_often() -> None:
        for _ in range(ROUNDS // EXPLAINING):
            if not threads.stop.is_set():  # an error elsewhere
                same(explain(model), truth)

    with serving(model) as threads:
        for thread in [threads.start(explain_often) for _ in range(EXPLAINING)]:
            thread.join()
    unchanged(before, model)


@pytest.mark.usefixtures("_switching_often")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_replicas_of_ones_own_and_of_others(frozen: bool, inner: bool) -> None:
    model = language_model().requires_grad_(not frozen)
    layer = model.body.layers[0].self_attn if inner else None
    truth = AttentionGradient(Last(model), layer).attribute(IDS, target=3)
    with torch.no_grad():
        predicted = model(IDS)
    spread = Replicated(model, 2)
    before = state(spread)
    threads = Threads()

    def explain() -> None:
        method = AttentionGradient(Last(spread), layer)
        for _ in range(20):
            same(method.attribute(IDS, target=3), truth)

    def serve() -> None:
        with torch.no_grad():
            while not threads.stop.is_set():
                found = spread(IDS)
                torch.testing.assert_close(found, predicted, rtol=1e-5, atol=1e-6)
                assert not found.requires_grad

    threads.start(serve)
    for thread in [threads.start(explain) for _ in range(2)]:
        thread.join()
    threads.join()
    unchanged(before, spread)


def test_nothing_is_recorded_of_another_thread() -> None:
    model = language_model()
    with capture_attention(model) as record:
        other = threading.Thread(target=model, args=(IDS,))
        other.start()
        other.join()
    assert len(record) == 0

    def elsewhere(ids: Tensor) -> Tensor:
        found: list[Tensor] = []
        other = threading.Thread(target=lambda: found.append(model(ids)[:, -1]))
        other.start()
        other.join()
        return found[0]

    with pytest.raises(ValueError, match="or in a thread of its own"):
        AttentionGradient(elsewhere, model).attribute(IDS, target=3)


def _pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, _pickled])
def test_a_copy_that_is_made_meanwhile_is_a_model_of_its_own(copied: Any) -> None:
    model = language_model()
    with capture_attention(model) as record:
        twin = copied(model)
        twin(IDS)
    assert len(record) == 0
    with torch.no_grad():
        twin.head.weight.zero_()
        twin.head.bias.fill_(2.0)
        for one in (twin, Replicated(twin, 2)):
            assert bool((one(IDS) == 2).all())
    method = AttentionGradient(Last(Replicated(twin, 2)), twin.body)
    assert not method.attribute(IDS, target=3).any()
    explain = EXPLANATIONS["AttentionGradient"]
    twin.head.load_state_dict(model.head.state_dict())
    same(explain(twin), explain(model))


class Unhookable(nn.Module):
    def register_forward_hook(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no hooks here")


def test_an_entry_that_fails_half_way_is_undone() -> None:
    model = language_model()
    truth = EXPLANATIONS["AttentionGradient"](model)
    model.last = Unhookable()
    before = state(model)
    with pytest.raises(RuntimeError, match="no hooks here"):
        capture_attention(model).__enter__()
    unchanged(before, model)
    del model.last
    same(EXPLANATIONS["AttentionGradient"](model), truth)


def test_the_registry_is_the_same_for_others() -> None:
    modeling = pytest.importorskip("transformers.modeling_utils")
    registry = modeling.ALL_ATTENTION_FUNCTIONS
    calls: list[Tensor] = []

    def attend(module: nn.Module, query: Tensor, *_: Any, **__: Any) -> Any:
        calls.append(query)
        return query * 2, None

    registry.register("of_this_test", attend)
    entered, leave = threading.Event(), threading.Event()
    threads = Threads()

    def record() -> None:
        with capture_attention(language_model()):
            entered.set()
            leave.wait()

    try:
        for _ in range(2):  # the first to enter is not the last to leave
            threads.start(record)
        assert entered.wait(10)
        found, _ = registry["of_this_test"](None, torch.ones(2), None, None, None)
        assert found.tolist() == [2.0, 2.0]
        assert len(calls) == 1
        assert torch.is_grad_enabled()
    finally:
        leave.set()
        threads.join()
        assert registry["of_this_test"] is attend
        registry._global_mapping.pop("of_this_test")


@pytest.mark.skipif(
    not uncompiled_code.possible, reason="torch compiles without a way out of it"
)
def test_compiled_code_is_compiled_again_afterwards() -> None:
    def stance() -> str:
        return torch._dynamo.eval_frame._stance.stance

    before = stance()
    one, two = uncompiled_code.needed(), uncompiled_code.needed()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert stance() == "force_eager"
    two.__exit__(None, None, None)
    assert stance() == before
