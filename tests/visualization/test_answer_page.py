"""The page of an explained answer."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captum_attngrad.attr import AnswerAttribution
from captum_attngrad.visualization import answer_page, save_answer_html

PROMPT = "<s> A <b>bold</b> claim.\nAnd another."


def result(**changed: Any) -> AnswerAttribution:
    words = [(m.start(), m.end()) for m in re.finditer(r"\S+", PROMPT)]
    rows = torch.tensor([[0.0, 1, -2, 3, 0.5, 0.25], [9.0, 0, 0, 0, -1, 0]])
    shares = torch.tensor([[0.0, 1, 1, 1, 0, 0], [0.0, 0, 0, 0, 1, 1]])
    fields: dict[str, Any] = {
        "input_tokens": ["A <b>bold</b> claim.", "And another."],
        "output_tokens": ["</script>", "yes"],
        "seq_attr": (rows @ shares.T).sum(0),
        "token_attr": rows @ shares.T,
        "output_probs": torch.tensor([0.5, 0.25]),
        "prompt_text": PROMPT,
        "answer_text": "</script> yes",
        "offsets": words,
        "prompt_seq_attr": rows.sum(0),
        "prompt_token_attr": rows,
    }
    return AnswerAttribution(**{**fields, **changed})


class Page(HTMLParser):
    """The tokens of the prompt, the options of the answer, and the data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tokens: dict[int, str] = {}
        self.options: list[str] = []
        self.data: Any = None
        self.within: Any = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self.within = given.get("id") if tag == "script" else None
        if "data-token" in given:
            self.within = int(given["data-token"])
        elif given.get("role") == "option":
            self.within = "option"

    def handle_endtag(self, tag: str) -> None:
        self.within = None

    def handle_data(self, data: str) -> None:
        if isinstance(self.within, int):
            self.tokens[self.within] = data
        elif self.within == "option":
            self.options.append(data)
        elif self.within == "data":
            self.data = json.loads(data)


def numbers(rows: list[dict[str, Any]]) -> torch.Tensor:
    decoded = [np.frombuffer(base64.b64decode(r["values"]), "<i2") for r in rows]
    return torch.tensor(
        np.array([d * r["factor"] for d, r in zip(decoded, rows, strict=True)])
    )


def test_it_shows_prompt_answer_and_scores() -> None:
    given = result()
    page = Page(answer_page(given))
    assert page.options == given.output_tokens
    # The start token has no color.
    assert page.tokens == {
        1: "A",
        2: "<b>bold</b>",
        3: "claim.",
        4: "And",
        5: "another.",
    }
    assert page.data["names"] == given.input_tokens
    tokens = torch.cat([given.prompt_seq_attr[None], given.prompt_token_attr])
    features = torch.cat([given.seq_attr[None], given.token_attr])
    for name, expected in (("tokens", tokens), ("features", features)):
        found = numbers(page.data[name])
        error = (found - expected).abs().amax(1)
        assert bool((error <= expected.abs().amax(1) / 2**15).all())


def test_texts_are_inert_and_nothing_is_loaded() -> None:
    page = answer_page(result(), title="A & B")
    assert "<h1>A &amp; B</h1>" in page
    assert "<b>bold" not in page
    assert page.count("</script>") == 2  # the data, and what shows it
    assert not re.search(r"https?://|src=|href=|@import|url\(", page)


def test_without_scores_of_tokens() -> None:
    page = answer_page(result(token_attr=None, prompt_token_attr=None))
    assert 'id="whole"' not in page
    assert len(Page(page).data["tokens"]) == 1


def test_without_offsets_the_features_are_the_prompt() -> None:
    given = result(offsets=None)
    assert list(Page(answer_page(given)).tokens.values()) == given.input_tokens


@pytest.mark.parametrize("score", [0.0, float("nan"), float("inf")])
def test_scores_that_are_no_numbers_do_not_stop_it(score: float) -> None:
    page = Page(answer_page(result(prompt_seq_attr=torch.full((6,), score))))
    assert bool(numbers(page.data["tokens"]).isfinite().all())


def test_it_is_written(tmp_path: Path) -> None:
    path = save_answer_html(result(), tmp_path / "new" / "answer.html")
    assert path.read_text(encoding="utf-8") == answer_page(result())
