"""The code of the README and of the manual's pages runs, and their links exist.

Where a reader puts a model of their own, there are tiny ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from captum_attngrad import register_method

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Relative links; what the manual's build makes is not there without it.
LINK = re.compile(
    r"\]\((?!https?:|#|api/|tutorials/\d|changelog|contributing)([^)]+)\)"
)
MADE = {"results/cost.md", "results/search.md", "cost.md", "search.md"}


def blocks(page: str) -> list[str]:
    return PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))


def write_classifier(folder: Path) -> None:
    from tests.tiny_bert import tiny_bert, tiny_tokenizer

    tiny_bert().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def write_language_model(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "The", "capital", "of", "France", "is", "Paris"]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def names_of(page: str) -> dict[str, Any]:
    """What the code of a page takes as given."""
    if page == "docs/exactness.md":
        from tests.docs_names import names_for

        return names_for("captum_attngrad", "")
    if page in ("docs/measuring.md", "docs/methods.md"):
        import captum_attngrad
        from tests.tiny_bert import tiny_bert, tiny_tokenizer

        return {
            "AttentionDeepLift": captum_attngrad.AttentionDeepLift,
            "log_odds": captum_attngrad.log_odds,
            "model": tiny_bert(),
            "tokenizer": tiny_tokenizer(),
            "texts": ["a good film", "the bad plot", "a fine film", "a bad film"],
            "labels": [1, 0, 1, 0],
        }
    return {}


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n\n".join(blocks(page))
    if page in ("README.md", "docs/measuring.md", "docs/methods.md"):
        pytest.importorskip("transformers")
    if "path/to/a/classifier" in code:
        write_classifier(tmp_path / "path/to/a/classifier")
        write_language_model(tmp_path / "path/to/a/language-model")
    monkeypatch.chdir(tmp_path)
    registry = register_method.__globals__["_REGISTRY"]
    monkeypatch.setitem(register_method.__globals__, "_REGISTRY", dict(registry))
    try:
        exec(compile(code, page, "exec"), {"__name__": "page"} | names_of(page))
    finally:
        plt.close("all")


def test_the_readme_has_three_recipes_and_fits() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(blocks("README.md")) == 3
    assert "make demo" in text
    assert "make test" in text
    assert len(text.splitlines()) < 200


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "tutorials/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        file = link.split("#")[0]
        assert file in MADE or (path.parent / file).exists(), link
