"""Records for Captum's visualize_text, and the HTML it makes of them."""

import re
import sys
from html.parser import HTMLParser

import pytest
import torch

from captum_attngrad.visualization import text_html, text_records


def records(tokens: list[list[str]], scores: torch.Tensor) -> list:  # type: ignore[type-arg]
    return text_records(
        tokens,
        scores,
        pred_prob=0.75,
        pred_class="positive",
        true_class="negative",
        attr_class="positive",
    )


class Words(HTMLParser):
    """Collects the text and the color of every <mark>."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.styles: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "mark":
            self.words.append("")
            self.styles.append(dict(attrs)["style"] or "")

    def handle_data(self, data: str) -> None:
        if self.words:
            self.words[-1] += data


def parse(html: str) -> Words:
    parser = Words()
    parser.feed(html)
    return parser


def test_fields_of_the_record() -> None:
    (record,) = text_records(
        [["a", "b"]],
        torch.tensor([[2.0, -4.0]]),
        torch.tensor([0.75]),
        [1],
        torch.tensor([0]),
        "x",
        convergence_score=0.5,
    )
    assert record.word_attributions.tolist() == [0.5, -1.0]
    assert record.pred_prob == 0.75
    assert (record.pred_class, record.true_class, record.attr_class) == (1, 0, "x")
    assert record.attr_score == -2.0
    assert record.raw_input_ids == ["a", "b"]
    assert record.convergence_score == 0.5


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e6])
def test_captum_clips_nothing_whatever_the_scale(scale: float) -> None:
    scores = torch.tensor([[4.0, 2.0, 0.0, -1.0]]).double() * scale
    (record,) = records([["a", "b", "c", "d"]], scores)
    assert record.word_attributions.tolist() == pytest.approx([1.0, 0.5, 0.0, -0.25])


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8])
def test_scores_that_vanished_have_no_color(scale: float) -> None:
    (record,) = records([["a", "b"]], torch.tensor([[3.0, -1.0]]) * scale)
    assert record.word_attributions.tolist() == [0.0, 0.0]
    assert record.attr_score == pytest.approx(2 * scale)


def test_special_tokens_have_no_color_and_unknown_words_do() -> None:
    tokens = ["[CLS]", "<unk>", "[MASK]", "x", "[SEP]", "[PAD]"]
    (record,) = records([tokens], torch.tensor([[9.0, 1, 2, -4, 7, 5]]))
    assert record.word_attributions.tolist() == [0, 0.25, 0.5, -1, 0, 0]
    (record,) = text_records(
        [tokens], torch.ones(1, 6), 0.5, 1, 1, 1, special_tokens=["x"]
    )
    assert record.word_attributions.tolist() == [1, 1, 1, 0, 1, 1]


def test_word_pieces_are_words_unless_asked_for() -> None:
    pieces, scores = [["un", "##seen", "film"]], torch.tensor([[1.0, 2, 1]])
    (record,) = records(pieces, scores)
    assert record.raw_input_ids == ["unseen", "film"]
    (record,) = text_records(pieces, scores, 0.5, 1, 1, 1, merge_pieces=False)
    assert record.raw_input_ids == pieces[0]


def test_padding_is_left_out_of_scores_and_scale() -> None:
    first, second = records([["a"], ["b", "c"]], torch.tensor([[1.0, 9.0], [1, 2]]))
    assert first.word_attributions.tolist() == [1.0]
    assert first.attr_score == 1.0
    assert second.word_attributions.tolist() == [0.5, 1.0]


def test_tokens_come_through_as_text() -> None:
    pytest.importorskip("IPython")
    tokens = ["<unk>", "<script>alert(1)</script>", "a&b", '"', "🙂", "שלום", "[SEP]"]
    html = text_html(records([tokens], torch.linspace(-1, 1, 7).unsqueeze(0)))
    found = parse(html)
    assert [word.strip() for word in found.words] == tokens
    assert "script" not in found.tags


def test_class_names_are_escaped() -> None:
    pytest.importorskip("IPython")
    shown = text_records([["a"]], torch.ones(1, 1), 1.0, "<b>x</b>", "<i>", "&")
    html = text_html(shown)
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "<i>" not in html


def test_sign_and_strength_reach_the_page() -> None:
    pytest.importorskip("IPython")
    found = parse(text_html(records([["a", "b", "c"]], torch.tensor([[6.0, 0, -3]]))))
    colors = [re.search(r"hsl\(.*?\)", style) for style in found.styles]
    assert [match and match.group() for match in colors] == [
        "hsl(120, 75%, 50%)",
        "hsl(0, 75%, 100%)",
        "hsl(0, 75%, 80%)",
    ]


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("IPython")
    assert "<table" in text_html(records([["a"]], torch.ones(1, 1)))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_missing_ipython_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(ImportError, match=r"captum-attngrad\[compare\]"):
        text_html(records([["a"]], torch.ones(1, 1)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match=r"attributions\[1\].*token 1 \('d'\)"):
        records([["a", "b"], ["c", "d"]], torch.tensor([[1, 2], [3, bad]]))


def test_wrong_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="2 rows for 1 texts"):
        records([["a"]], torch.ones(2, 1))
    with pytest.raises(ValueError, match=r"shape \(1,\) for 2 tokens"):
        records([["a", "b"]], torch.ones(1, 1))
    with pytest.raises(TypeError, match="the string 'ab'"):
        records(["ab"], torch.ones(1, 2))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="pred_prob has 2 entries"):
        text_records([["a"]], torch.ones(1, 1), [0.5, 0.5], 1, 1, 1)
