"""Word pieces put together, against tokenizers that took words apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_attngrad import merge_word_pieces, text_records

SENTENCES = [
    "the unwatchable film keeps watching itself",
    "a wonderfully acted and beautifully lit drama",
    "naïve café owners déjà vu",
    "these predictable endings are unforgivable",
]


def merged(tokens: list[str], **options: Any) -> tuple[list[str], list[float]]:
    """Words, and the scores 1, 2, 4, ... of their pieces added."""
    words, scores = merge_word_pieces(
        tokens, [2.0**i for i in range(len(tokens))], **options
    )
    return words, scores.tolist()


def test_wordpiece() -> None:
    tokens = ["[CLS]", "un", "##watch", "##able", "!", "so", "[SEP]", "[PAD]"]
    words, scores = merged(tokens)
    assert words == ["[CLS]", "unwatchable", "!", "so", "[SEP]", "[PAD]"]
    assert scores == [1, 14, 16, 32, 64, 128]


def test_sentencepiece() -> None:
    tokens = ["<s>", "▁un", "watch", "able", ".", "▁So", "▁", "it", "</s>", "<pad>"]
    words, scores = merged(tokens)
    assert words == ["<s>", "unwatchable.", "So", "it", "</s>", "<pad>"]
    assert scores == [1, 30, 32, 192, 256, 512]


def test_byte_level() -> None:
    tokens = ["<s>", "Un", "watch", "able", "Ġso", "Ġit", "'s", "<|endoftext|>"]
    words, scores = merged(tokens)
    assert words == ["<s>", "Unwatchable", "so", "it's", "<|endoftext|>"]
    assert scores == [1, 14, 16, 96, 128]


def test_bytes_become_characters() -> None:
    assert merged(["Ġna", "Ã¯", "ve"])[0] == ["naïve"]
    assert merged(["Ġok", "ĠðŁ", "ĺ", "Ģ"]) == (["ok", "😀"], [1, 14])
    assert merged(["▁x", "▁", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "!"]) == (
        ["x", "😀!"],
        [1, 126],
    )
    assert merged(["▁x", "<0xF0>", "!"])[0] == ["x\ufffd!"]


def test_lines_end_words_too() -> None:
    assert merged(["Ġend", "Ċ", "The", "ĠĠĠ", "Ġx"]) == (
        ["end", "Ċ", "The", "ĠĠĠ", "x"],
        [1, 2, 4, 8, 16],
    )
    assert merged(["▁end", "<0x0A>", "The"])[0] == ["end", "<0x0A>", "The"]


def test_special_tokens_never_join() -> None:
    # What follows one starts a word, even without a mark.
    assert merged(["▁a", "<mask>", "b", "c"])[0] == ["a", "<mask>", "bc"]
    assert merged(["[CLS]", "##ing", "##s"])[0] == ["[CLS]", "##ings"]
    # The caller knows best.
    tokens = ["▁a", "<b>", "c"]
    assert merged(tokens)[0] == ["a", "<b>", "c"]
    assert merged(tokens, special_tokens=[])[0] == ["a<b>c"]
    assert merged(["▁a", "@@", "c"], special_tokens={"@@"})[0] == ["a", "@@", "c"]


def test_the_scheme_can_be_told() -> None:
    assert merged(["Ġorġ", "##a"], scheme="wordpiece")[0] == ["Ġorġa"]
    assert merged(["Hel", "lo"])[0] == ["Hel", "lo"]
    assert merged(["Hel", "lo"], scheme="byte-level")[0] == ["Hello"]
    assert merged(["Hel", "lo"], scheme="sentencepiece")[0] == ["Hello"]
    with pytest.raises(ValueError, match="scheme='bpe' is unknown"):
        merged(["a"], scheme="bpe")


def test_words_without_marks_stay() -> None:
    assert merged(["a", "fine", "##", "film"])[0] == ["a", "fine", "##", "film"]
    assert merged([]) == ([], [])


def test_a_batch_is_read_with_one_scheme() -> None:
    # The second text alone has no mark.
    words, scores = merge_word_pieces(
        [["A", "Ġfil", "m"], ["Fi", "lm"]], torch.tensor([[1.0, 2, 4], [8, 16, 99]])
    )
    assert words == [["A", "film"], ["Film"]]
    assert [row.tolist() for row in scores] == [[1, 6], [24]]


def test_maps_are_merged_along_their_inputs() -> None:
    scores = torch.arange(12.0).view(2, 2, 3)
    words, sums = merge_word_pieces(["a", "##b", "c"], scores)
    assert words == ["ab", "c"]
    torch.testing.assert_close(
        sums, torch.stack([scores[..., 0] + scores[..., 1], scores[..., 2]], dim=-1)
    )


def test_tensors_keep_dtype_and_gradient() -> None:
    scores = torch.tensor([1.0, 2, 4], dtype=torch.float32, requires_grad=True)
    _, sums = merge_word_pieces(["a", "##b", "c"], scores)
    assert sums.dtype == torch.float32
    sums[0].backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [1, 1, 0]
    for other in (scores.detach().int(), np.array([1, 2, 4]), [1, 2, 4]):
        _, sums = merge_word_pieces(["a", "##b", "c"], other)  # type: ignore[arg-type]
        assert sums.dtype == torch.float64
        assert sums.tolist() == [3, 4]


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"scores has shape \(1,\) for 2 tokens"):
        merge_word_pieces(["a", "b"], [1.0])
    with pytest.raises(ValueError, match=r"scores\[1\] has shape \(1,\) for 2 tokens"):
        merge_word_pieces([["a"], ["b", "c"]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="2 rows for 1 texts"):
        merge_word_pieces([["a"]], torch.ones(2, 1))
    with pytest.raises(TypeError, match="the string 'ab'"):
        merge_word_pieces("ab", [1.0, 2.0])


def tokenizer_of(kind: str) -> Any:
    """A small tokenizer of each kind, trained on the sentences."""
    tokenizers = pytest.importorskip("tokenizers")
    from tokenizers import models, pre_tokenizers, trainers

    made = {
        "wordpiece": (
            models.WordPiece(unk_token="[UNK]"),
            pre_tokenizers.WhitespaceSplit(),
            trainers.WordPieceTrainer(
                vocab_size=60, special_tokens=["[UNK]"], show_progress=False
            ),
        ),
        "sentencepiece": (
            models.Unigram(),
            pre_tokenizers.Metaspace(),
            trainers.UnigramTrainer(
                vocab_size=60,
                special_tokens=["<unk>"],
                unk_token="<unk>",
                show_progress=False,
            ),
        ),
        "byte-level": (
            models.BPE(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            trainers.BpeTrainer(
                vocab_size=300,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        ),
    }
    model, splitter, trainer = made[kind]
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = splitter
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


@pytest.mark.parametrize("kind", ["wordpiece", "sentencepiece", "byte-level"])
def test_words_of_real_tokenizers_come_back(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    for text in [*SENTENCES, "watchable dramas", "unlit endings keep watching"]:
        encoded = tokenizer.encode(text)
        assert len(encoded.tokens) > len(text.split())  # words were taken apart
        words, sums = merge_word_pieces(
            encoded.tokens, torch.ones(len(encoded.tokens)), scheme=kind
        )
        assert words == text.split()
        # As many pieces as end in each word, or in the space before it.
        starts = [0]
        for word in words[:-1]:
            starts.append(starts[-1] + len(word) + 1)
        inside = [
            sum(start <= end <= start + len(word) for _, end in encoded.offsets)
            for start, word in zip(starts, words, strict=True)
        ]
        assert sums.tolist() == inside


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=6))
def test_bytes_of_any_text_come_back(words: list[str]) -> None:
    pre_tokenizers = pytest.importorskip("tokenizers").pre_tokenizers
    words = [word for word in "".join(" " + w for w in words).split() if word]
    # Only the mapping of bytes to characters, which the method has to undo.
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = []
    for word in words:
        ((mapped, _),) = level.pre_tokenize_str(" " + word)
        pieces += [mapped[:2], *mapped[2:]]
    got, sums = merge_word_pieces(
        pieces, torch.ones(len(pieces)), scheme="byte-level", special_tokens=[]
    )
    assert got == words
    assert sums.sum() == len(pieces)


def test_records_of_words() -> None:
    records = text_records(
        [["[CLS]", "un", "##real", "[SEP]"], ["fine", "<b>"]],
        torch.tensor([[0.0, 1.0, -3.0, 4.0], [1.0, 2.0, 99.0, 99.0]]),
        0.5,
        1,
        1,
        1,
        merge_pieces=True,
    )
    assert records[0].raw_input_ids == ["[CLS]", "unreal", "[SEP]"]
    assert records[0].word_attributions.tolist() == [0, -1, 0]
    assert records[0].attr_score == 2
    assert records[1].raw_input_ids == ["fine", "&lt;b&gt;"]
    assert records[1].word_attributions.tolist() == [0.5, 1]


def test_records_name_bad_scores_before_they_are_added() -> None:
    with pytest.raises(ValueError, match=r"attributions\[0\].*token 1 \('##b'\)"):
        text_records(
            [["a", "##b"]],
            [torch.tensor([1, torch.nan])],
            1,
            1,
            1,
            1,
            merge_pieces=True,
        )
