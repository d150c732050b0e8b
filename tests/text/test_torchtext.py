"""torchtext's own objects in a TextModel, and what is said where it does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from captum_attngrad import text
from captum_attngrad.attr import AttentionGradient
from captum_attngrad.evaluation import compare
from captum_attngrad.models import AttentionLSTMClassifier
from captum_attngrad.text import TextModel, import_torchtext

TEXTS = [
    "A slow start, but the end is a joy!",
    "The joke is old; the film is too long.",
    "Bright, quick and kind.",
    "Nothing here is bright.",
]
SPECIALS = ["<pad>", "<unk>"]


def text_model(
    build: Callable[..., Any], tokenizer: Callable[[str], list[str]]
) -> TextModel:
    # "film", "old" and others occur once, so that there are unknown words.
    vocab = build((tokenizer(t) for t in TEXTS), min_freq=2, specials=SPECIALS)
    vocab.set_default_index(vocab["<unk>"])
    torch.manual_seed(0)
    model = AttentionLSTMClassifier(len(vocab), embedding_dim=6, hidden_size=5).eval()
    return TextModel.from_torch(
        model,
        tokenizer,
        vocab,
        embedding=model.embedding,
        attention_layers=model.attention,
    )


@pytest.fixture
def with_torchtext(torchtext: ModuleType) -> TextModel:
    from torchtext.data.utils import get_tokenizer
    from torchtext.vocab import build_vocab_from_iterator

    return text_model(build_vocab_from_iterator, get_tokenizer("basic_english"))


def test_texts_are_read_as_torchtext_reads_them(with_torchtext: TextModel) -> None:
    batch = with_torchtext.batch(TEXTS[2:])
    assert batch.tokens == (
        ("bright", ",", "quick", "and", "kind", "."),
        ("nothing", "here", "is", "bright", "."),
    )
    # By hand: is 4, then those that occur three times (".", "the") and twice (",",
    # "a", "bright"), each group in alphabetical order.
    shown = with_torchtext.show_tokens(list(range(8)))
    assert shown == [*SPECIALS, "is", ".", "the", ",", "a", "bright"]
    assert batch.input_ids.tolist() == [[7, 5, 1, 1, 1, 3], [1, 1, 2, 7, 3, 0]]
    assert batch.attention_mask.sum(dim=1).tolist() == [6, 5]
    assert (with_torchtext.pad_id, with_torchtext.replacement_id) == (0, 1)


def test_explanations_do_not_depend_on_whose_vocabulary_it_is(
    with_torchtext: TextModel,
) -> None:
    from torchtext.data.utils import get_tokenizer

    ours = text_model(text.build_vocab_from_iterator, get_tokenizer("basic_english"))
    found = []
    for each in (with_torchtext, ours):
        batch = each.batch(TEXTS)
        method = AttentionGradient(each.logits, each.attention_layers)
        mask = batch.attention_mask
        scores = method.attribute(batch.input_ids, 1, mask)
        assert bool((scores[mask] != 0).any())
        found.append(scores)
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_torchtext_objects_are_compared_like_ours(with_torchtext: TextModel) -> None:
    from torchtext.data.utils import get_tokenizer

    ours = text_model(text.build_vocab_from_iterator, get_tokenizer("basic_english"))
    results = [
        compare(
            each,
            TEXTS,
            labels=[1, 0, 1, 0],
            methods=["attention_gradient", "leave_one_out", "random"],
            show_progress=False,
        )
        for each in (with_torchtext, ours)
    ]
    theirs, expected = results
    assert theirs.metrics == expected.metrics
    np.testing.assert_array_equal(theirs.values, expected.values)
    assert np.isfinite(theirs.values).any(axis=(0, 2)).sum() > 5


def test_a_transform_serves_as_vocabulary(with_torchtext: TextModel) -> None:
    from torchtext.data.utils import get_tokenizer
    from torchtext.transforms import VocabTransform
    from torchtext.vocab import vocab as vocab_of

    vocab = vocab_of({"bright": 2, "is": 1}, specials=SPECIALS)
    vocab.set_default_index(1)
    model = AttentionLSTMClassifier(4, embedding_dim=6, hidden_size=5).eval()
    transformed = TextModel.from_torch(
        model,
        get_tokenizer("basic_english"),
        VocabTransform(vocab),
        embedding=model.embedding,
    )
    batch = transformed.batch(["bright is bright", "old"])
    assert batch.input_ids.tolist() == [[2, 3, 2], [1, 0, 0]]
    # A transform has no lookup_tokens: the tokens are those that were read.
    assert transformed.show_tokens([0, 1, 2, 3]) == [*SPECIALS, "bright", "is"]


@pytest.mark.skipif(find_spec("torchtext") is not None, reason="torchtext is installed")
def test_without_torchtext_the_extra_is_named() -> None:
    expected = (
        r"torchtext is not installed\. .*torch 2\.3.*captum-attngrad\[torchtext\]"
    )
    with pytest.raises(ImportError, match=expected):
        import_torchtext()


@pytest.mark.network
@pytest.mark.skipif(
    torch.__version__.startswith("2.3.") or sys.version_info >= (3, 13),
    reason="torchtext 0.18.0 fits this torch, or has no wheel for this Python",
)
def test_beside_another_torch_the_versions_are_named(tmp_path: Path) -> None:
    # The real wheel beside the installed torch, in a process of its own.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", tmp_path, "torchtext==0.18.0"], check=True)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from captum_attngrad.text import import_torchtext; import_torchtext()",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: torchtext 0.18.0 cannot be imported beside")
    assert f"torch {torch.__version__} (OSError: " in last
    assert "compiled for torch 2.3, which needs numpy below 2" in last
