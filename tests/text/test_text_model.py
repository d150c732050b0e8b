"""TextModel: what it says of a model, against the model itself."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad.evaluation.registry import available_methods, resolve_methods
from captum_attngrad.models import AttentionLSTMClassifier
from captum_attngrad.text import (
    TextModel,
    WordTokenizer,
    build_vocab_from_iterator,
    by_length,
)
from captum_attngrad.text.word_pieces import merge_word_pieces

TEXTS = ["A good film", "the unwatchable plot", "bad"]


def lstm_text_model() -> TextModel:
    vocab = build_vocab_from_iterator(
        [["a", "good", "film", "bad", "plot"]], specials=["<pad>", "<unk>"]
    )
    vocab.set_default_index(1)
    torch.manual_seed(0)
    model = AttentionLSTMClassifier(len(vocab), embedding_dim=6, hidden_size=5).eval()
    return TextModel.from_torch(
        model,
        WordTokenizer(),
        vocab,
        embedding=model.embedding,
        attention_layers=model.attention,
    )


def bert_text_model(**options: Any) -> TextModel:
    pytest.importorskip("transformers")
    from tests.tiny_bert import tiny_bert, tiny_tokenizer

    return TextModel.from_huggingface(tiny_bert(), tiny_tokenizer(), **options)


@pytest.fixture(params=["lstm", "bert"])
def text_model(request: pytest.FixtureRequest) -> TextModel:
    return lstm_text_model() if request.param == "lstm" else bert_text_model()


def test_word_pieces_are_shown_and_special_tokens_left_alone() -> None:
    batch = bert_text_model().batch(TEXTS)
    assert batch.tokens == (
        ("[CLS]", "a", "good", "film", "[SEP]"),
        ("[CLS]", "the", "un", "##watch", "##able", "plot", "[SEP]"),
        ("[CLS]", "bad", "[SEP]"),
    )
    assert batch.attention_mask.sum(dim=1).tolist() == [5, 7, 3]
    attributable = [[t not in ("[CLS]", "[SEP]") for t in row] for row in batch.tokens]
    for row, expected in zip(batch.attributable.tolist(), attributable, strict=True):
        assert row == expected + [False] * (7 - len(expected))


def test_replacement_is_mask_or_unknown_or_padding() -> None:
    text_model = bert_text_model()
    from tests.tiny_bert import tiny_bert, tiny_tokenizer

    assert text_model.replacement_id == 4
    assert text_model.pad_id == 0
    assert text_model.special_ids == (0, 1, 2, 3, 4)
    without_mask = tiny_tokenizer(pad_token="[PAD]", unk_token="[UNK]")
    assert TextModel.from_huggingface(tiny_bert(), without_mask).replacement_id == 1
    only_padding = tiny_tokenizer(pad_token="[PAD]")
    assert TextModel.from_huggingface(tiny_bert(), only_padding).replacement_id == 0


def test_logits_are_those_of_the_model() -> None:
    text_model = bert_text_model()
    batch = text_model.batch(TEXTS)
    with torch.no_grad():
        p = text_model.probabilities(batch.input_ids, batch.attention_mask)
        for row in range(3):
            one = batch.trimmed_row(row)
            alone = text_model.model(input_ids=one.input_ids).logits.double().softmax(1)
            torch.testing.assert_close(p[row], alone[0], rtol=1e-5, atol=1e-6)


def test_embeddings_give_the_same_logits_and_have_gradients(
    text_model: TextModel,
) -> None:
    batch = text_model.batch(TEXTS)
    embeddings = text_model.embed(batch.input_ids).requires_grad_()
    logits = text_model.logits_from_embeddings(embeddings, batch.attention_mask)
    expected = text_model.logits(batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(logits, expected)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), embeddings)
    assert bool((gradient[batch.attention_mask].abs().sum(dim=1) > 0).all())
    # They are really what the model reads, and the hook is gone afterwards.
    moved = text_model.logits_from_embeddings(embeddings.flip(2), batch.attention_mask)
    assert not torch.allclose(moved, logits)
    after = text_model.logits(batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(after, expected)


def test_an_embedding_that_the_model_does_not_use_is_named() -> None:
    text_model = lstm_text_model()
    model = AttentionLSTMClassifier(7)
    other = TextModel(**{**vars(text_model), "embedding": model.embedding})
    with pytest.raises(RuntimeError, match=r"embedding module \(Embedding\) ran 0"):
        other.logits_from_embeddings(
            torch.zeros(1, 2, 100), torch.ones(1, 2, dtype=torch.bool)
        )


def test_long_texts_are_cut_with_a_warning() -> None:
    text_model = bert_text_model(max_length=4)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 4 tokens"):
        batch = text_model.batch(["good film", "a good film"])
    assert batch.tokens[1] == ("[CLS]", "a", "good", "[SEP]")
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than 24 tokens"):
        assert bert_text_model().batch(["film " * 60]).input_ids.shape == (1, 24)


def test_what_does_not_fit_is_named() -> None:
    pytest.importorskip("transformers")
    from tests.tiny_bert import tiny_bert, tiny_tokenizer

    with pytest.raises(ValueError, match="no padding token"):
        TextModel.from_huggingface(tiny_bert(), tiny_tokenizer(unk_token="[UNK]"))
    with pytest.raises(ValueError, match=r"has 1 output\(s\)"):
        TextModel.from_huggingface(tiny_bert(num_labels=1), tiny_tokenizer())
    with pytest.raises(ValueError, match="class_names has 3 entries"):
        bert_text_model(class_names=["a", "b", "c"])
    with pytest.raises(ValueError, match="'' has no tokens"):
        bert_text_model().batch(["good", ""])


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(1, 200),
)
def test_batches_hold_every_text_once_and_keep_the_budget(
    lengths: list[int], budget: int
) -> None:
    batches = by_length(lengths, budget)
    assert sorted(place for batch in batches for place in batch) == list(
        range(len(lengths))
    )
    for batch in batches:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    # In order of length, so that padding is small.
    in_order = [lengths[place] for batch in batches for place in batch]
    assert in_order == sorted(lengths)


def test_batches_of_texts(text_model: TextModel) -> None:
    seen = []
    for places, batch in text_model.batches(TEXTS, [7, 8, 9], tokens_per_batch=10):
        assert batch.input_ids.numel() <= 10
        alone = text_model.encode([TEXTS[place] for place in places])
        assert batch.tokens == alone.tokens
        assert list(batch.seeds) == [[7, 8, 9][place] for place in places]
        seen += places
    assert sorted(seen) == [0, 1, 2]
    with pytest.raises(ValueError, match="tokens_per_batch is 0"):
        list(text_model.batches(TEXTS, tokens_per_batch=0))


def test_every_method_runs_on_a_transformer_alone_as_in_a_batch() -> None:
    text_model = bert_text_model()
    batch = text_model.batch(TEXTS, [1, 2, 3])
    target = torch.tensor([0, 1, 0])
    for method in resolve_methods(available_methods()):
        if method.name == "deep_lift":
            with pytest.raises(RuntimeError, match="do not reach every nonlinearity"):
                method.function(text_model, batch, target)
            continue
        together = method.function(text_model, batch, target).double()
        assert together.shape == batch.input_ids.shape, method.name
        for row in range(3):
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


class _Sigmoids(nn.Module):
    """DeepLift's rules reach all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.first = nn.Linear(3, 4)
        self.sigmoid = nn.Sigmoid()
        self.second = nn.Linear(4, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        embedded = self.embedding(input_ids) * attention_mask.unsqueeze(2)
        logits: Tensor = self.second(self.sigmoid(self.first(embedded.sum(dim=1))))
        return logits


def test_deep_lift_where_the_model_allows_it() -> None:
    torch.manual_seed(0)
    model = _Sigmoids().eval()
    vocab = build_vocab_from_iterator(
        [["a", "good", "film", "bad", "plot"]], specials=["<pad>", "<unk>"]
    )
    vocab.set_default_index(1)
    text_model = TextModel.from_torch(
        model, WordTokenizer(), vocab, embedding=model.embedding
    )
    (method,) = resolve_methods(["deep_lift"])
    batch = text_model.batch(["a good film", "bad"])
    # The last softmax is a function, so only a nearly linear stretch of it passes.
    with torch.no_grad():
        model.second.weight *= 0.05
    target = torch.tensor([0, 1])
    scores = method.function(text_model, batch, target)
    with torch.no_grad():
        full = text_model.probabilities(batch.input_ids, batch.attention_mask)
        nothing = torch.ones_like(batch.input_ids)
        without = text_model.probabilities(nothing, batch.attention_mask)
    change = (full - without).gather(1, target.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(scores.sum(dim=1).double(), change, rtol=0.05, atol=1e-3)


def test_pieces_of_any_vocabulary_merge_into_words() -> None:
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.tiny_bert import tiny_bert

    pieces = ["<pad>", "<unk>", "Un", "watch", "able", "Ġfilm", "Ġna", "Ã¯", "ve"]
    model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>"
    )
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>"
    )
    text_model = TextModel.from_huggingface(tiny_bert(), tokenizer)
    shown = text_model.show_tokens([2, 3, 4, 5, 6, 7, 8, 0])
    assert shown == ["Un", "##watch", "##able", "film", "na", "##ï", "##ve", "<pad>"]
    words, _ = merge_word_pieces(shown, [0.0] * 8)
    assert words == ["Unwatchable", "film", "naïve", "<pad>"]
