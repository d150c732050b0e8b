"""The real torchtext against ours, where it is installed (it needs torch 2.3)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from captum_attngrad import text

TEXTS = [["b", "a", "b"], ["c", "<unk>"], ["c", "b", "d"]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_freq": 2},
        {"specials": ["<pad>", "<unk>"]},
        {"specials": ["<pad>", "<unk>"], "special_first": False},
        {"specials": ["<unk>"], "max_tokens": 4},
    ],
)
def test_the_same_vocabulary_is_built(
    torchtext: ModuleType, options: dict[str, Any]
) -> None:
    from torchtext.vocab import Vocab
    from torchtext.vocab import build_vocab_from_iterator as build

    ours = text.build_vocab_from_iterator(TEXTS, **options)
    theirs = build(TEXTS, **options)
    assert ours.get_itos() == theirs.get_itos()
    assert ours.get_stoi() == theirs.get_stoi()
    for vocab in (ours, theirs):
        with pytest.raises(RuntimeError):
            vocab["film"]
        with pytest.raises(RuntimeError):
            vocab.lookup_token(len(vocab))
        with pytest.raises(RuntimeError):
            vocab.append_token("b")
        vocab.set_default_index(0)
        vocab.insert_token("new", 1)
    assert ours.get_default_index() == theirs.get_default_index() == 0
    assert ours(["film", "b", "new"]) == theirs(["film", "b", "new"])
    assert ours.get_itos() == theirs.get_itos()
    names = {name for name in vars(Vocab) if not name.startswith("_")}
    assert {name for name in names - {"is_jitable"} if not hasattr(ours, name)} == set()
