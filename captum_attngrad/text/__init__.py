"""Text models; tokenizer, vocabulary and batching like torchtext's; error rates."""

from captum_attngrad.text._torchtext import import_torchtext
from captum_attngrad.text.batching import by_length, pad_batch
from captum_attngrad.text.error_rates import (
    edit_distance,
    phoneme_error_rate,
    word_error_rate,
)
from captum_attngrad.text.text_batch import TextBatch
from captum_attngrad.text.text_model import TextModel
from captum_attngrad.text.tokenizer import WordTokenizer
from captum_attngrad.text.vocab import Vocab, build_vocab_from_iterator
from captum_attngrad.text.word_pieces import merge_word_pieces

__all__ = [
    "TextBatch",
    "TextModel",
    "Vocab",
    "WordTokenizer",
    "build_vocab_from_iterator",
    "by_length",
    "edit_distance",
    "import_torchtext",
    "merge_word_pieces",
    "pad_batch",
    "phoneme_error_rate",
    "word_error_rate",
]
