"""Sentence pairs and other tensors of a tokenizer: the answer is the model's own."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_attngrad.evaluation import available_methods, available_metrics, compare
from captum_attngrad.evaluation.registry import resolve_methods
from captum_attngrad.metrics import (
    AttackDetection,
    NeighborSubstitution,
    Resilience,
    TokenAttack,
)
from captum_attngrad.text import TextModel
from captum_attngrad.text.batching import pad_values

pytest.importorskip("transformers")

from tests.text.test_text_model import lstm_text_model
from tests.tiny_bert import tiny_bert, tiny_tokenizer

PAIRS = [
    ("a good film", "the plot"),
    ("bad", "a fine film"),
    ("the unwatchable plot", "good"),
]
ATTACKS = [
    Resilience(NeighborSubstitution(n_neighbors=3, epsilon=0.5, fraction=0.5)),
    AttackDetection(TokenAttack(max_fraction=1.0, n_neighbors=3)),
]
MIXED = [PAIRS[0], "a good film", ["bad", "plot"]]


def pair_tokenizer() -> Any:
    """Marks the second sentence as BERT's tokenizer does."""
    from tokenizers import processors

    tokenizer = tiny_tokenizer()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def pair_bert(num_labels: int = 3) -> Any:
    """For which the type of a token matters as much as the token."""
    model = tiny_bert(num_labels)
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight.mul_(8)
    return model


def pair_model() -> TextModel:
    return TextModel.from_huggingface(pair_bert(), pair_tokenizer())


def own_answer(model: Any, tokenizer: Any, text: Any) -> Tensor:
    """The model called with all that the tokenizer returns."""
    pair = (text,) if isinstance(text, str) else tuple(text)
    encoded = tokenizer(*pair, return_tensors="pt", truncation=True, max_length=24)
    with torch.no_grad():
        answer: Tensor = model(**encoded).logits[0]
    return answer


@pytest.mark.parametrize("texts", [PAIRS, MIXED, PAIRS[:1]])
def test_pairs_get_the_models_own_answer(texts: list[Any]) -> None:
    text_model = pair_model()
    batch = text_model.batch(texts)
    assert list(batch.extras) == ["token_type_ids"]
    with torch.no_grad():
        logits = text_model.logits(batch.input_ids, *batch.forward_args)
        p = text_model.probabilities(batch.input_ids, *batch.forward_args)
    for row, text in enumerate(texts):
        expected = own_answer(text_model.model, pair_tokenizer(), text)
        torch.testing.assert_close(logits[row], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            p[row], expected.double().softmax(0), rtol=1e-5, atol=1e-6
        )
        one = batch.trimmed_row(row)
        with torch.no_grad():
            alone = text_model.logits(one.input_ids, *one.forward_args)[0]
        torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)
    # It would be another answer without the types.
    with torch.no_grad():
        dropped = text_model.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()
        ).logits
    assert float((dropped - logits).abs().max()) > 0.1


def test_the_second_sentence_is_explained_as_well() -> None:
    batch = pair_model().batch(PAIRS[:1])
    assert batch.tokens == (
        ("[CLS]", "a", "good", "film", "[SEP]", "the", "plot", "[SEP]"),
    )
    free = [False, True, True, True, False, True, True, False]
    assert batch.attributable[0].tolist() == free


def test_embeddings_give_the_same_answer() -> None:
    text_model = pair_model()
    batch = text_model.batch(PAIRS)
    embedded = text_model.embed(batch.input_ids)
    torch.testing.assert_close(
        text_model.logits_from_embeddings(embedded, *batch.forward_args),
        text_model.logits(batch.input_ids, *batch.forward_args),
    )


def test_pairs_without_their_types_are_refused() -> None:
    text_model = pair_model()
    batch = text_model.batch(["a good film", "bad"])
    # All of one type: what is left out is known.
    torch.testing.assert_close(
        text_model.logits(batch.input_ids, batch.attention_mask),
        text_model.logits(batch.input_ids, *batch.forward_args),
    )
    batch = text_model.batch(PAIRS)
    with pytest.raises(ValueError, match=r"token_type_ids that differ.*forward_args"):
        text_model.logits(batch.input_ids, batch.attention_mask)
    with pytest.raises(ValueError, match="2 tensors follow attention_mask"):
        text_model.logits(batch.input_ids, *batch.forward_args, batch.attention_mask)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ([("a", "b", "c")], TypeError, r"texts\[0\] is \('a', 'b', 'c'\); expected a"),
        (["good", 3], TypeError, r"texts\[1\] is 3; expected a string, or a pair"),
        ([("good", None)], TypeError, r"texts\[0\] is \('good', None\)"),
        (["good \ud83d"], ValueError, r"texts\[0\] holds \\ud83d, half of a surrogate"),
        ([("good", "\udc00")], ValueError, r"texts\[0\] holds \\udc00"),
        ("good", TypeError, "texts is the string 'good'"),
    ],
)
def test_what_is_no_text_is_named(
    texts: Any, error: type[Exception], message: str
) -> None:
    for text_model in (pair_model(), lstm_text_model()):
        with pytest.raises(error, match=message):
            text_model.batch(texts)
        with pytest.raises(error, match=message):
            compare(text_model, texts, methods=["random"], show_progress=False)


def test_models_of_torch_read_no_pairs() -> None:
    with pytest.raises(ValueError, match=r"texts\[1\] is a pair, \('a', 'film'\)"):
        lstm_text_model().batch(["good", ("a", "film")])


def test_every_method_explains_pairs_as_the_model_reads_them() -> None:
    """A model in which types pick the words: without them scores would differ."""
    text_model = pair_model()
    batch = text_model.batch(PAIRS, [1, 2, 3])
    with torch.no_grad():
        target = text_model.logits(batch.input_ids, *batch.forward_args).argmax(dim=1)
    for method in resolve_methods(available_methods()):
        if method.name == "deep_lift":
            continue
        together = method.function(text_model, batch, target).double()
        for row in range(len(PAIRS)):
            one = batch.trimmed_row(row)
            alone = method.function(text_model, one, target[row : row + 1]).double()
            allowed = one.attributable[0]
            torch.testing.assert_close(
                together[row, : alone.shape[1]][allowed],
                alone[0][allowed],
                rtol=1e-3,
                atol=1e-5,
                msg=lambda text, name=method.name: f"{name}: {text}",
            )


def test_leave_one_out_of_a_pair_is_what_the_definition_says() -> None:
    text_model = pair_model()
    batch = text_model.batch(PAIRS)
    target = torch.tensor([2, 1, 0])
    (method,) = resolve_methods(["leave_one_out"])
    scores = method.function(text_model, batch, target)
    tokenizer = pair_tokenizer()
    for row, pair in enumerate(PAIRS):
        encoded = tokenizer(*pair, return_tensors="pt")

        def p(ids: Tensor, row: int = row, encoded: Any = encoded) -> Tensor:
            answer = text_model.model(**{**encoded, "input_ids": ids}).logits
            probability: Tensor = answer.double().softmax(1)[0, target[row]]
            return probability

        with torch.no_grad():
            whole = p(encoded["input_ids"])
            for place in batch.attributable[row].nonzero().flatten().tolist():
                without = encoded["input_ids"].clone()
                without[0, place] = 4
                assert abs(float(whole - p(without) - scores[row, place])) < 1e-6


@pytest.mark.slow
def test_pairs_are_compared_by_every_metric() -> None:
    text_model = pair_model()
    # Those need more words than there are.
    replaced = {n for n in available_metrics() if "neighbor" in n or "token_" in n}
    replaced |= {"attack_localization"}
    result = compare(
        text_model,
        PAIRS,
        methods=["attention_gradient", "leave_one_out", "random"],
        metrics=[
            *(n for n in available_metrics() if n not in replaced),
            *ATTACKS,
        ],
        show_progress=False,
    )
    for text, pair in zip(result.texts, PAIRS, strict=True):
        expected = own_answer(text_model.model, pair_tokenizer(), pair).double()
        assert text.predicted == int(expected.argmax())
        assert abs(text.probability - float(expected.softmax(0).max())) < 1e-5
    assert not result.failures
    notes = {name: why for (_, name), why in result.notes.items()}
    for name in ("comprehensiveness", "infidelity", *(m.name for m in ATTACKS)):
        assert name not in notes, notes
    assert not [why for why in notes.values() if "forward_args" in why]


class _ManyInputs(nn.Module):
    """A classifier that reads what its tokenizer returns of tokens and of texts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(15, 4)
        self.boxes = nn.Linear(2, 4)
        self.languages = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)
        self.config = _Config()

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, bbox: Tensor, language: Tensor
    ) -> Any:
        summed = self.words(input_ids) + self.boxes(bbox)
        weights = attention_mask / attention_mask.sum(dim=1, keepdim=True)
        mean = (summed * weights.unsqueeze(2)).sum(dim=1)
        return _Output(self.head(torch.tanh(mean + self.languages(language))))


class _Config:
    num_labels = 2
    problem_type = None
    id2label = {0: "no", 1: "yes"}  # noqa: RUF012


class _Output:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class _ManyOutputs:
    """A tokenizer with boxes for tokens and a vector, of three numbers, for a text."""

    def __init__(self) -> None:
        self._inner = tiny_tokenizer()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, texts: Any, pairs: Any = None, **options: Any) -> Any:
        found = dict(self._inner(texts, pairs, **options))
        found.pop("token_type_ids", None)  # some versions return it
        alone = isinstance(texts, str)
        rows = [found["input_ids"]] if alone else found["input_ids"]
        boxes = [[[i / 7, len(ids) / 9] for i in ids] for ids in rows]
        language = [[float(len(ids)), 1.0, -1.0] for ids in rows]
        return {
            **found,
            "bbox": boxes[0] if alone else boxes,
            "language": language[0] if alone else language,
            "unused": [0] if alone else [[0] for _ in rows],
        }


def test_other_tensors_of_tokens_and_of_texts_are_carried() -> None:
    model, tokenizer = _ManyInputs().eval(), _ManyOutputs()
    text_model = TextModel.from_huggingface(model, tokenizer)
    # Of texts of one and of five tokens; with padding, three numbers are not tokens.
    texts = ["good", "the unwatchable plot", "a film"]
    batch = text_model.batch(texts)
    assert batch.extras["bbox"].shape == (3, 7, 2)
    assert batch.extras["language"].shape == (3, 3)
    p = text_model.probabilities(batch.input_ids, *batch.forward_args)
    for row, text in enumerate(texts):
        found = tokenizer(text)
        logits = model(
            torch.tensor([found["input_ids"]]),
            torch.tensor([found["attention_mask"]]),
            torch.tensor([found["bbox"]]),
            torch.tensor([found["language"]]),
        ).logits
        expected = logits.double().softmax(1)[0]
        torch.testing.assert_close(p[row], expected, rtol=1e-5, atol=1e-6)
        one = batch.trimmed_row(row)
        assert one.extras["language"].shape == (1, 3)
        alone = text_model.probabilities(one.input_ids, *one.forward_args)[0]
        torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="returns bbox that differ"):
        text_model.logits(batch.input_ids, batch.attention_mask)
    result = compare(
        text_model,
        texts,
        methods=["integrated_gradients", "lime", "leave_one_out", "saliency"],
        metrics=["comprehensiveness", *ATTACKS],
        show_progress=False,
    )
    assert not result.failures
    assert not result.notes


def test_tensors_of_no_known_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"spans has the shapes \(2,\), \(4,\) for te"):
        pad_values("spans", [[1, 2], [1, 2, 3, 4]], [3, 5], 0)


class _SomeOutputs(_ManyOutputs):
    def __call__(self, texts: Any, pairs: Any = None, **options: Any) -> Any:
        found = super().__call__(texts, pairs, **options)
        if texts == ["good"]:
            del found["bbox"]
        return found


def test_tensors_that_come_and_go_are_named() -> None:
    text_model = TextModel.from_huggingface(_ManyInputs(), _SomeOutputs())
    with pytest.raises(ValueError, match="returns bbox for some texts and not for"):
        text_model.batch(["good"])


class _LastPosition(nn.Module):
    """Reads its answer where padding would be."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.config = inner.config
        self.config.summary_type = "last"

    def get_input_embeddings(self) -> nn.Module:
        module: nn.Module = self.inner.get_input_embeddings()
        return module

    def forward(self, **arguments: Any) -> Any:
        return self.inner(**arguments)


def test_models_that_would_read_padding_are_refused_in_batches() -> None:
    text_model = TextModel.from_huggingface(
        _LastPosition(pair_bert()), pair_tokenizer()
    )
    batch = text_model.batch(["a good film", "bad"])
    with pytest.raises(ValueError, match=r"last position.*as TextModel.batches does"):
        text_model.logits(batch.input_ids, *batch.forward_args)
    for row in range(2):
        one = batch.trimmed_row(row)
        assert text_model.logits(one.input_ids, *one.forward_args).shape == (1, 3)
    texts = ["a good film", "bad", "good", "a fine plot"]
    found = list(text_model.batches(texts, tokens_per_batch=100))
    assert [places for places, _ in found] == [[1, 2], [0, 3]]


@pytest.mark.parametrize("family", ["FNet", "ConvBert", "Nystromformer", "XLNet"])
def test_models_whose_answer_padding_changes_get_none(family: str) -> None:
    import transformers

    sizes: dict[str, Any] = {
        "vocab_size": 15,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
    }
    if family == "FNet":
        del sizes["num_attention_heads"]
    if family == "XLNet":
        sizes = {"vocab_size": 15, "d_model": 16, "n_layer": 2, "n_head": 2}
    config = getattr(transformers, f"{family}Config")(
        **sizes, num_labels=3, pad_token_id=0
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    text_model = TextModel.from_huggingface(model, pair_tokenizer())
    texts = [*PAIRS, "a good film", "bad", "the bad plot"]
    seen = []
    for places, batch in text_model.batches(texts):
        seen += places
        with torch.no_grad():
            logits = text_model.logits(batch.input_ids, *batch.forward_args)
        for row, place in enumerate(places):
            expected = own_answer(model, pair_tokenizer(), texts[place])
            torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)
    assert sorted(seen) == list(range(6))


def test_rows_of_a_batch_keep_what_belongs_to_them() -> None:
    batch = pair_model().batch(PAIRS, [1, 2, 3])
    some = batch.rows([2, 0])
    assert some.tokens == (batch.tokens[2], batch.tokens[0])
    assert some.seeds == (3, 1)
    types = batch.extras["token_type_ids"]
    assert torch.equal(some.extras["token_type_ids"], types[[2, 0]])
    assert torch.equal(batch.rows([1], 3).extras["token_type_ids"], types[[1], :3])
    moved = replace(some, seeds=(0, 0))
    assert len(moved.forward_args) == 2


def test_pairs_that_are_too_long_are_cut_as_the_tokenizer_cuts_them() -> None:
    text_model = pair_model()
    pair = ("a good film " * 9, "plot")
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than 24 tokens"):
        batch = text_model.batch([pair])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = own_answer(text_model.model, pair_tokenizer(), pair)
        logits = text_model.logits(batch.input_ids, *batch.forward_args)[0]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
