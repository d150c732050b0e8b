"""Attention gradient of a language model's answer."""

from __future__ import annotations

import inspect
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LLMAttributionResult, TextTemplateInput, TextTokenInput
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    IntegratedAttentionGradient,
    LLMAttentionGradient,
)
from tests.attr.language_models import (
    WORDS,
    Decoder,
    WithOutput,
    WordTokenizer,
    decoder,
    true_scores,
)
from tests.attr.surroundings import Replicated, state, unchanged

PROMPT = "the red cat sat on"
ANSWER = "the mat . and"
PROMPT_IDS = WordTokenizer().encode(PROMPT)
ANSWER_IDS = WordTokenizer().encode(ANSWER)
LENGTH = len(PROMPT_IDS)


def explainer(model: nn.Module, **options: Any) -> LLMAttentionGradient:
    method = AttentionGradient(model, **options)
    return LLMAttentionGradient(method, WordTokenizer(), attr_target="log_prob")


def answer_rows(pairs: Tensor, length: int = LENGTH) -> Tensor:
    """``(answer tokens, layers, heads, queries, keys)`` to ``(tokens, keys)``."""
    return pairs[..., length - 1 :, :length].sum((1, 2, 3))


def close(found: Tensor | None, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def check(result: LLMAttributionResult, expected: Tensor) -> None:
    close(result.token_attr, expected)
    close(result.seq_attr, expected.sum(0))


# -- against the definition ----------------------------------------------------------


@pytest.mark.parametrize("kind", [Decoder, WithOutput])
@pytest.mark.parametrize("multiply", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_exact(kind: type[Decoder], multiply: bool, center: bool) -> None:
    model = decoder(kind)
    pairs = true_scores(model, PROMPT_IDS, ANSWER_IDS, multiply, center)
    options = {"multiply_by_attention": multiply, "center": center}
    llm = explainer(model, **options)
    all_rows = llm.attribute(PROMPT, ANSWER, query="all")
    check(all_rows, pairs.sum((1, 2, 3))[:, :LENGTH])
    result = llm.attribute(PROMPT, ANSWER)
    assert isinstance(result, LLMAttributionResult)
    expected = answer_rows(pairs)
    assert expected.abs().min() > 1e-6
    check(result, expected)
    for query in ("answer", "all", -1, -2, 0, LENGTH - 1):
        whole = llm.attribute(PROMPT, ANSWER, query=query, per_token=False)
        assert whole.token_attr is None
        of_tokens = llm.attribute(PROMPT, ANSWER, query=query)
        close(whole.seq_attr, of_tokens.seq_attr)
    assert result.input_tokens == PROMPT.split()
    assert result.output_tokens == ANSWER.split()
    check(llm.attribute(PROMPT, torch.tensor(ANSWER_IDS)), expected)
    check(llm.attribute(TextTokenInput(PROMPT, WordTokenizer()), ANSWER), expected)
    # One layer, one head, one query.
    one = explainer(model, layer=model.layers[1], heads=[0], **options)
    maps = pairs[:, 1, 0]
    check(one.attribute(PROMPT, ANSWER, query="all"), maps.sum(1)[:, :LENGTH])
    check(one.attribute(PROMPT, ANSWER), maps[:, LENGTH - 1 :, :LENGTH].sum(1))
    at = LENGTH - 1 + torch.arange(len(ANSWER_IDS))
    rows = torch.arange(len(ANSWER_IDS))
    for query in (-1, -2, -LENGTH):
        found = one.attribute(PROMPT, ANSWER, query=query)
        check(found, maps[rows, at + 1 + query][:, :LENGTH])
    for query in (0, 2, LENGTH - 1):
        found = explainer(model, **options).attribute(PROMPT, ANSWER, query=query)
        check(found, pairs.sum((1, 2))[:, query, :LENGTH])


def test_positive_only_sums_over_the_queries_up_to_the_predicting_one() -> None:
    model = decoder()
    pairs = true_scores(model, PROMPT_IDS, ANSWER_IDS).clamp_min(0)
    result = explainer(model, positive_only=True).attribute(PROMPT, ANSWER, query="all")
    check(result, pairs.sum((1, 2, 3))[:, :LENGTH])


@pytest.mark.parametrize("kind", [Decoder, WithOutput])
def test_what_is_explained(kind: type[Decoder]) -> None:
    model = decoder(kind)
    method = AttentionGradient(model)
    found, truth = {}, {}
    for name in ("log_prob", "prob", "logit", "log_odds"):
        llm = LLMAttentionGradient(method, WordTokenizer(), attr_target=name)
        found[name] = llm.attribute(PROMPT, ANSWER)
        pairs = true_scores(model, PROMPT_IDS, ANSWER_IDS, score=name)
        truth[name] = answer_rows(pairs)
        close(found[name].token_attr, truth[name])
        if name != "prob":
            close(found[name].seq_attr, truth[name].sum(0))
    default = LLMAttentionGradient(method, WordTokenizer()).attribute(PROMPT, ANSWER)
    check(default, truth["log_odds"])
    # The probability of the answer is the product of those of its tokens.
    text = torch.tensor([PROMPT_IDS + ANSWER_IDS])
    output = model(text)
    p = getattr(output, "logits", output).softmax(-1)[0, LENGTH - 1 : -1]
    p = p[torch.arange(len(ANSWER_IDS)), text[0, LENGTH:]]
    close(found["prob"].seq_attr, truth["log_prob"].sum(0) * p.prod())
    if hasattr(found["prob"], "output_probs"):
        close(found["prob"].output_probs, p.detach())


def test_a_model_is_explained_by_attention_times_gradient() -> None:
    model = decoder()
    found = LLMAttentionGradient(model, WordTokenizer()).attribute(PROMPT, ANSWER)
    pairs = true_scores(model, PROMPT_IDS, ANSWER_IDS, multiply=True, score="log_odds")
    check(found, answer_rows(pairs))


def test_contrast() -> None:
    """The difference of two logits at the first token where the answers part."""
    model = decoder()
    llm = explainer(model)
    for contrast in ("the mat , and", torch.tensor([*ANSWER_IDS[:2], 5])):
        found = llm.attribute(PROMPT, ANSWER, contrast=contrast)
        other = [*ANSWER_IDS[:2], int(WordTokenizer().ids[","])]
        if not isinstance(contrast, str):
            other[2] = 5
        ours, theirs = (
            answer_rows(true_scores(model, PROMPT_IDS, ids[:3], score="logit"))[2:]
            for ids in (ANSWER_IDS, other)
        )
        check(found, ours - theirs)
        assert found.output_tokens == ["."]


def test_saturated_scores_are_reported() -> None:
    model = decoder()
    with torch.no_grad():
        model.head.bias[ANSWER_IDS[0]] += 30
    for target in ("log_prob", "prob"):
        llm = LLMAttentionGradient(model, WordTokenizer(), target)
        with pytest.warns(UserWarning, match=r"sure of all explained tokens.*1\.0000"):
            llm.attribute(PROMPT, "the")
    for target in ("logit", "log_odds"):
        LLMAttentionGradient(model, WordTokenizer(), target).attribute(PROMPT, "the")


class Recall(nn.Module):
    """Attends evenly to all tokens up to each position, and the logits are three times
    the share that each word has among them."""

    def forward(self, input_ids: Tensor) -> Tensor:
        x = F.one_hot(input_ids, len(WORDS)).double().unsqueeze(1)
        alike = torch.zeros_like(x[..., :1])
        return 3 * F.scaled_dot_product_attention(alike, alike, x, is_causal=True)[:, 0]


def test_by_hand() -> None:
    # dO = 3 (1[y] - p), so that a token of the prompt scores 3 (1[is y] - p(it)).
    result = explainer(Recall()).attribute("red cat red", "cat dog", query="all")
    cat, dog = result.token_attr
    shares = torch.zeros(len(WORDS), dtype=torch.float64)
    shares[WORDS.index("red")], shares[WORDS.index("cat")] = 2 / 3, 1 / 3
    p = (3 * shares).softmax(0)
    red, of_cat = (float(p[WORDS.index(w)]) for w in ("red", "cat"))
    close(cat, torch.tensor([-3 * red, 3 - 3 * of_cat, -3 * red], dtype=torch.float64))
    assert cat[1] > 0
    assert bool((dog < 0).all())  # nothing in the prompt speaks for an unseen word


@given(
    prompt=st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=6),
    answer=st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=5),
    multiply=st.booleans(),
)
def test_as_token_by_token(
    prompt: list[int], answer: list[int], multiply: bool
) -> None:
    """All tokens in one graph are explained as each is by itself."""
    model = decoder()
    method = AttentionGradient(
        lambda ids: model(ids)[:, -1].log_softmax(-1),
        model.layers,
        multiply_by_attention=multiply,
    )
    expected = [
        method.attribute(torch.tensor([prompt + answer[:t]]), token)[0, : len(prompt)]
        for t, token in enumerate(answer)
    ]
    words = " ".join(WORDS[i] for i in prompt)
    inp = TextTokenInput(words, WordTokenizer())
    inp.inp_tensor = torch.tensor([prompt])  # "<s>" is cut into three
    inp.values = [WORDS[i] for i in prompt]
    result = explainer(model, multiply_by_attention=multiply).attribute(
        inp, torch.tensor(answer), query="all"
    )
    check(result, torch.stack(expected))


# -- the features of the prompt ------------------------------------------------------


def token_scores(model: nn.Module, prompt: str) -> Tensor:
    return explainer(model).attribute(prompt, ANSWER).token_attr


def test_tokens_that_are_left_out_of_the_prompt() -> None:
    model = decoder()
    scores = token_scores(model, PROMPT)
    for skipped in (["red", "on"], [WORDS.index("red"), WORDS.index("on")]):
        inp = TextTokenInput(PROMPT, WordTokenizer(), skip_tokens=skipped)
        result = explainer(model).attribute(inp, ANSWER)
        assert result.input_tokens == ["the", "cat", "sat"]
        check(result, scores[:, [0, 2, 3]])


def test_a_start_token_is_a_feature_of_a_string() -> None:
    model = decoder()
    llm = LLMAttentionGradient(AttentionGradient(model), WordTokenizer(start=True))
    result = llm.attribute(PROMPT, ANSWER)
    assert result.input_tokens == ["<s>", *PROMPT.split()]
    pairs = true_scores(model, [1, *PROMPT_IDS], ANSWER_IDS, score="log_odds")
    check(result, answer_rows(pairs, LENGTH + 1))
    template = TextTemplateInput("{} red cat sat on", ["the"])
    found = llm.attribute(template, ANSWER)
    check(found, result.token_attr[:, [1]])  # and is none of a template


def test_template_features_sum_the_scores_of_their_tokens() -> None:
    model = decoder()
    scores = token_scores(model, PROMPT)
    the, red, cat, sat, on = scores.unbind(1)
    for template, values, columns in (
        ("the {} sat {}", ["red cat", "on"], [red + cat, on]),
        ("the {b} sat {a}", {"a": "on", "b": "red cat"}, [on, red + cat]),
        ("{1} red{0} on", [" cat sat", "the"], [cat + sat, the]),
        (lambda a, b: f"{a} red cat {b} on", ["the", "sat"], [the, sat]),
        ("the{}on", [" red cat sat "], [red + cat + sat]),
        ("the {} {}cat sat on", ["red", ""], [red, 0 * red]),
        ("the {}d cat sat on", ["re"], [red]),  # a part of a token: all of it
    ):
        inp = TextTemplateInput(template, values)
        assert inp.to_model_input() == PROMPT
        result = explainer(model).attribute(inp, ANSWER)
        assert result.input_tokens == inp.values
        check(result, torch.stack(columns, dim=1))


def test_a_value_that_stands_in_several_places() -> None:
    model = decoder()
    scores = token_scores(model, "the cat and the dog")
    inp = TextTemplateInput("{0} cat and {0} dog", ["the"])
    check(explainer(model).attribute(inp, ANSWER), scores[:, [0]] + scores[:, [3]])


def test_a_token_of_several_values_is_shared_by_its_characters() -> None:
    model = decoder()
    house = token_scores(model, "the house")[:, [1]]
    inp = TextTemplateInput("the {}{}", ["h", "ouse"])
    check(
        explainer(model).attribute(inp, ANSWER),
        house * torch.tensor([0.2, 0.8], dtype=torch.float64),
    )


def test_grouped_values() -> None:
    model = decoder()
    the, red, cat, _, on = token_scores(model, PROMPT).unbind(1)
    inp = TextTemplateInput("{} {} {} sat {}", [*PROMPT.split()[:3], "on"])
    check(
        explainer(model).attribute(inp, ANSWER), torch.stack([the, red, cat, on], dim=1)
    )
    inp = TextTemplateInput(
        "{} {} {} sat {}", [*PROMPT.split()[:3], "on"], mask=[7, 4, 4, 7]
    )
    result = explainer(model).attribute(inp, ANSWER)
    assert result.input_tokens == ["the", "red", "cat", "on"]
    check(result, torch.stack([the + on, red + cat, red + cat, the + on], dim=1))


# -- the answer ----------------------------------------------------------------------


def test_generated_answers() -> None:
    model = decoder()
    ids = torch.tensor([PROMPT_IDS])
    answer = model.generate(ids, 25)[0, LENGTH:]
    assert len(set(answer.tolist())) > 1
    result = explainer(model).attribute(PROMPT)
    assert result.output_tokens == [WORDS[i] for i in answer]
    check(result, explainer(model).attribute(PROMPT, answer).token_attr)
    result = explainer(model).attribute(PROMPT, None, {"max_new_tokens": 2})
    assert result.output_tokens == [WORDS[i] for i in answer[:2]]


def test_tokens_of_the_answer_that_are_not_explained() -> None:
    model = decoder()
    scores = token_scores(model, PROMPT)
    for skipped in (["the", "."], [WORDS.index("the"), WORDS.index(".")]):
        result = explainer(model).attribute(PROMPT, ANSWER, skip_tokens=skipped)
        assert result.output_tokens == ["mat", "and"]
        check(result, scores[[1, 3]])


def test_text_that_is_cut_otherwise_once_more_still_has_labels() -> None:
    answer = torch.tensor([1, 0, 2])  # "<s>" is cut into three
    result = explainer(decoder()).attribute(PROMPT, answer)
    assert result.output_tokens == ["<s>", "<unk>", "the"]


# -- how it runs ---------------------------------------------------------------------


def test_one_forward_pass_with_the_logits_of_the_answer() -> None:
    model = decoder(WithOutput)
    llm = explainer(model)
    for query in ("answer", "all", -1):
        llm.attribute(PROMPT, ANSWER, query=query)  # layouts are proved once
        for options in ({}, {"per_token": False}, {"skip_tokens": ["mat", "and"]}):
            model.asked.clear()
            llm.attribute(PROMPT, ANSWER, query=query, **options)
            assert model.asked == [((1, 8), 4, False)]


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    llm = explainer(decoder())
    llm.attribute(PROMPT, ANSWER)
    assert "attribution" not in capsys.readouterr().err
    llm.attribute(PROMPT, ANSWER, show_progress=True)
    assert "LLM Attention Gradient attribution" in capsys.readouterr().err


def test_any_function_with_layers() -> None:
    model = decoder()
    expected = token_scores(model, PROMPT)
    method = AttentionGradient(lambda ids: model(ids), list(model.layers))
    llm = LLMAttentionGradient(method, WordTokenizer(), attr_target="log_prob")
    check(llm.attribute(PROMPT, ANSWER), expected)
    check(explainer(Replicated(model, 2)).attribute(PROMPT, ANSWER), expected)
    compiled = torch.compile(model, backend="eager")
    check(explainer(compiled).attribute(PROMPT, ANSWER), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_the_callers_modes(mode: Any) -> None:
    model = decoder(WithOutput)
    expected = token_scores(model, PROMPT)
    with mode():
        for target in (ANSWER, torch.tensor(ANSWER_IDS)):
            check(explainer(model).attribute(PROMPT, target), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smaller_dtypes(dtype: torch.dtype) -> None:
    model = decoder()
    expected = token_scores(model, PROMPT).float()
    result = explainer(model.to(dtype)).attribute(PROMPT, ANSWER)
    assert result.token_attr.dtype == torch.float32
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(
        result.token_attr, expected, rtol=tolerance, atol=tolerance
    )


@pytest.mark.gpu
def test_cuda() -> None:
    model = decoder()
    expected = token_scores(model, PROMPT)
    result = explainer(model.cuda()).attribute(PROMPT, ANSWER)
    assert result.seq_attr.is_cuda
    close(result.token_attr.cpu(), expected)
    generated = explainer(model).attribute(PROMPT, gen_args={"max_new_tokens": 3})
    assert generated.token_attr.shape == (3, LENGTH)
    generated.plot_token_attr()
    plt.close("all")


@pytest.mark.parametrize("stop", [None, ValueError, KeyboardInterrupt])
def test_nothing_is_changed(stop: type[BaseException] | None) -> None:
    model = decoder(WithOutput)
    method = AttentionGradient(model)
    llm = LLMAttentionGradient(method, WordTokenizer())
    if stop is not None:

        def fail(*_: object) -> None:
            raise stop("on the way")

        model.layers[1].out.register_forward_hook(fail)
    before, settings = state(model), dict(vars(method))
    if stop is None:
        llm.attribute(PROMPT, ANSWER)
    else:
        with pytest.raises(stop, match="on the way"):
            llm.attribute(PROMPT, ANSWER)
    unchanged(before, model)
    assert dict(vars(method)) == settings


def test_conventions() -> None:
    assert LLMAttentionGradient.get_name() == "LLM Attention Gradient"
    assert LLMAttentionGradient.attribute.__wrapped__
    names = list(inspect.signature(LLMAttentionGradient.attribute).parameters)
    assert names[:4] == ["self", "inp", "target", "gen_args"]
    with pytest.raises(NotImplementedError, match="attribute_future"):
        explainer(decoder()).attribute_future()


# -- Captum's plots ------------------------------------------------------------------


@pytest.mark.parametrize(
    "inp", [PROMPT, TextTemplateInput("the {} sat {}", ["red cat", "on"])]
)
def test_plots(inp: Any) -> None:
    result = explainer(decoder()).attribute(inp, ANSWER)
    figure, axes = result.plot_token_attr()
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == result.input_tokens
    assert [t.get_text() for t in axes.get_yticklabels()] == ANSWER.split()
    cells = [text.get_text() for text in axes.texts]
    assert cells == [f"{value:.4f}" for value in result.token_attr.flatten()]
    figure.canvas.draw()
    figure, axes = result.plot_seq_attr()
    heights = [float(bar.get_height()) for bar in axes.patches]
    bars = torch.tensor(heights, dtype=torch.float64).view(2, -1).sum(0)
    torch.testing.assert_close(bars, result.seq_attr)
    figure.canvas.draw()
    plt.close("all")
    assert list(result.seq_attr_dict) == result.input_tokens


# -- bad input -----------------------------------------------------------------------


def test_bad_instances() -> None:
    model, tokenizer = decoder(), WordTokenizer()
    with pytest.raises(TypeError, match="IntegratedAttentionGradient, expected"):
        LLMAttentionGradient(IntegratedAttentionGradient(model), tokenizer)
    with pytest.raises(TypeError, match="is method, expected the language model"):
        LLMAttentionGradient(model.forward, tokenizer)
    with pytest.raises(ValueError, match="has a loss_func"):
        explainer(model, loss_func=F.cross_entropy)
    with pytest.raises(ValueError, match="attr_target='loss' is unknown"):
        LLMAttentionGradient(AttentionGradient(model), tokenizer, "loss")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2],), TypeError, "inp is list, expected the prompt as a str"),
        (("", ANSWER), ValueError, "prompt has no tokens"),
        ((PROMPT, ""), ValueError, "answer has no tokens"),
        ((PROMPT, [3, 4]), TypeError, "target is list, expected the answer as a str"),
        ((PROMPT, torch.tensor([[3, 4]])), ValueError, r"shape \(1, 2\).*expected"),
        ((PROMPT, torch.tensor([0.5])), ValueError, "dtype torch.float32, expected"),
        ((PROMPT, torch.tensor([3, -1])), ValueError, "0 or more, got -1"),
        ((PROMPT, torch.tensor([3, 99])), ValueError, "id 99 of the answer is out"),
        (
            (PROMPT, ANSWER, {"max_new_tokens": 2}),
            ValueError,
            "Pass only one",
        ),
    ],
)
def test_bad_arguments(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        explainer(decoder(WithOutput)).attribute(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"skip_tokens": ["nonsense"]}, ValueError, "skip_tokens holds 'nonsense'"),
        ({"skip_tokens": ANSWER.split()}, ValueError, "leaves no token of the answer"),
        ({"query": LENGTH}, ValueError, "query=5 is out of range: .* from 0 to 4"),
        ({"query": -LENGTH - 1}, ValueError, "query=-6 is out of range: .* from -5"),
        ({"query": torch.tensor([1])}, ValueError, "query=.*expected 'answer', 'all'"),
        ({"query": "prompt"}, ValueError, "query='prompt', expected 'answer', 'all'"),
        ({"contrast": ANSWER}, ValueError, "do not part"),
        ({"contrast": "the mat"}, ValueError, "do not part"),
        ({"contrast": ""}, ValueError, "do not part"),
    ],
)
def test_bad_options(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        explainer(decoder()).attribute(PROMPT, ANSWER, **options)


def test_models_that_cannot_generate() -> None:
    with pytest.raises(ValueError, match="Recall has no generate method"):
        explainer(Recall()).attribute(PROMPT)


def test_templates_that_change_their_values() -> None:
    for template in ("the {:>9} sat", lambda a: f"the {a.upper()} sat"):
        inp = TextTemplateInput(template, ["cat"])
        with pytest.raises(ValueError, match=r"changes its values.*the .* sat"):
            explainer(decoder()).attribute(inp, ANSWER)


def test_templates_need_offsets() -> None:
    method = AttentionGradient(decoder())
    llm = LLMAttentionGradient(method, WordTokenizer(offsets=False))
    with pytest.raises(ValueError, match="WordTokenizer does not say which characters"):
        llm.attribute(TextTemplateInput("the {}", ["cat"]), ANSWER)
    result = llm.attribute(PROMPT, ANSWER)  # labels do not need them
    assert result.output_tokens == ANSWER.split()


def test_models_of_another_kind() -> None:
    model = decoder()
    for layer in model.layers:
        layer.causal = False
    with pytest.raises(ValueError, match="not causal"):
        explainer(model).attribute(PROMPT, ANSWER)
    last = AttentionGradient(lambda ids: model(ids)[:, -1], model.layers)
    with pytest.raises(ValueError, match=r"returned shape \(1, 23\), expected logits"):
        LLMAttentionGradient(last, WordTokenizer()).attribute(PROMPT, ANSWER)
    model.config = type("Config", (), {"is_encoder_decoder": True})()
    with pytest.raises(ValueError, match="is an encoder-decoder model"):
        explainer(model)


class Prefixed(Decoder):
    """One learned key before those of the text."""

    def forward(self, input_ids: Tensor) -> Tensor:
        start = torch.zeros_like(input_ids[:, :1])
        return super().forward(torch.cat([start, input_ids], dim=1))[:, 1:]


def test_keys_that_are_no_tokens() -> None:
    with pytest.raises(ValueError, match="attention has 9 keys for a text of 8 tokens"):
        explainer(decoder(Prefixed)).attribute(PROMPT, ANSWER)
