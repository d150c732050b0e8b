"""Tokenizer, vocabulary and batching with the call shape of torchtext's."""

from captum_attngrad.text.batching import pad_batch
from captum_attngrad.text.tokenizer import WordTokenizer
from captum_attngrad.text.vocab import Vocab, build_vocab_from_iterator

__all__ = ["Vocab", "WordTokenizer", "build_vocab_from_iterator", "pad_batch"]
