"""compare(): who wins where the truth is known, and what the result says."""

import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_attngrad.evaluation import (
    Comparison,
    Interval,
    Method,
    TextBatch,
    TextModel,
    compare,
    plot_metric,
)
from captum_attngrad.metrics import Comprehensiveness
from captum_attngrad.metrics.functional import comprehensiveness, sufficiency
from tests.evaluation.planted import planted_text_model, planted_texts

METHODS = (
    "attention_gradient",
    "attention_x_gradient",
    "attention_weights",
    "integrated_gradients",
    "lime",
    "leave_one_out",
    "random",
)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(
        planted_text_model(),
        planted_texts(),
        labels=[(i + 1) % 2 for i in range(40)],
        methods=METHODS,
        metrics=["comprehensiveness", "sufficiency"],
        show_progress=False,
    )


def test_random_and_raw_attention_lose_to_the_truth(comparison: Comparison) -> None:
    # Attention looks hardest at "the", which says nothing.
    for metric, sign, best in (
        ("comprehensiveness", 1, "attention_gradient"),
        ("sufficiency", -1, "leave_one_out"),
    ):
        means = {
            method.name: sign * comparison.interval(method.name, metric).mean
            for method in comparison.methods
        }
        for name in (
            "attention_gradient",
            "attention_x_gradient",
            "integrated_gradients",
            "lime",
            "leave_one_out",
        ):
            assert means[name] > means["random"] + 0.1, (metric, name)
            assert means[name] > means["attention_weights"] + 0.1, (metric, name)
        marks = dict(
            zip(means, comparison.not_beaten(metric), strict=True),
        )
        assert not marks["random"]
        assert not marks["attention_weights"]
        assert marks[best]


def test_values_are_those_of_the_metric_functions(comparison: Comparison) -> None:
    text_model = planted_text_model()
    text_model.model.eval()
    texts = planted_texts()
    for place in (0, 7, 39):
        batch = text_model.batch([texts[place]])
        explained = comparison.texts[place]
        for i, method in enumerate(comparison.methods):
            scores = torch.as_tensor(explained.scores[method.name]).unsqueeze(0)
            for j, function in enumerate((comprehensiveness, sufficiency)):
                value = function(
                    text_model.probabilities,
                    batch.input_ids,
                    scores,
                    explained.predicted,
                    text_model.replacement_id,
                    additional_forward_args=(batch.attention_mask,),
                )
                assert comparison.values[i, j, place] == pytest.approx(value.item())


def test_texts_keep_their_order(comparison: Comparison) -> None:
    words = [" ".join(text.tokens) for text in comparison.texts]
    assert words == planted_texts()
    assert [text.predicted for text in comparison.texts] == [
        1 if "good" in text or "bad" not in text else 0 for text in words
    ]
    for text in comparison.texts:
        assert text.label is not None
        assert all(len(row) == len(text.tokens) for row in text.scores.values())


def test_same_seed_same_result_other_seed_other_random() -> None:
    runs = [
        compare(
            planted_text_model(),
            planted_texts(12),
            methods=["lime", "random"],
            metrics=["comprehensiveness", "infidelity"],
            seed=seed,
            show_progress=False,
        )
        for seed in (4, 4, 5)
    ]
    assert np.array_equal(runs[0].values, runs[1].values)
    assert not np.array_equal(runs[0].values[1], runs[2].values[1])


def test_model_is_left_as_it_was() -> None:
    text_model = planted_text_model()
    text_model.model.train()
    text_model.embedding.eval()
    before = [module.training for module in text_model.model.modules()]
    compare(text_model, ["good film"], methods=["occlusion"], show_progress=False)
    assert [module.training for module in text_model.model.modules()] == before
    assert text_model.embedding.weight.grad is None


def shown(interval: Interval, digits: int, best: bool) -> str:
    """A pattern of what the table shows of an interval."""
    mean, low, high = (f"{x:.{digits}f}".replace("-", "−") for x in interval)
    return rf" {mean} \[ *{low}, +{high}\]" + (r"\*" if best else " ")


def test_table_shows_means_intervals_and_direction(comparison: Comparison) -> None:
    blocks = comparison.table().split("\n\n")
    assert [block.splitlines()[0] for block in blocks[:2]] == [
        "AVERAGE RANK, BY PROPERTY",
        "FAITHFULNESS",
    ]
    heads = [
        [part.strip() for part in block.splitlines()[1].split("  ") if part]
        for block in blocks[:2]
    ]
    assert heads == [
        ["method", "faithfulness ↓", "s/text"],
        ["method", "comprehensiveness ↑", "sufficiency ↓"],
    ]
    ranked, measured = (block.splitlines()[3:] for block in blocks[:2])
    best_rank = comparison.best_ranked("faithfulness")
    best = comparison.not_beaten("comprehensiveness")
    for i, method in enumerate(comparison.methods):
        assert ranked[i].startswith(method.name)
        rank = comparison.average_rank(method.name, "faithfulness")
        assert re.search(shown(rank, 1, best_rank[i]), ranked[i])
        assert measured[i].startswith(method.name)
        interval = comparison.interval(method.name, "comprehensiveness")
        assert interval.low <= interval.mean <= interval.high
        assert re.search(shown(interval, 3, best[i]), measured[i])


def test_table_of_one_metric_has_no_ranks(comparison: Comparison) -> None:
    one = replace(
        comparison, metrics=comparison.metrics[:1], values=comparison.values[:, :1]
    )
    title, head, *_ = one.table().splitlines()
    assert title == "FAITHFULNESS"
    assert head.split() == ["method", "comprehensiveness", "↑", "s/text"]
    assert one.ranked_properties == ()


def test_table_fits_100_columns(comparison: Comparison) -> None:
    assert max(len(line) for line in comparison.table().splitlines()) <= 100


def test_unknown_names_are_named(comparison: Comparison) -> None:
    with pytest.raises(KeyError, match="no method 'shap'"):
        comparison.interval("shap", "sufficiency")
    with pytest.raises(KeyError, match="no metric 'auc'"):
        comparison.interval("random", "auc")


def test_settings_say_what_was_run(comparison: Comparison) -> None:
    assert comparison.settings["texts"] == "40"
    assert comparison.settings["bins"] == "5%, 10%, 20%, 50%"
    right = sum(text.predicted == text.label for text in comparison.texts)
    assert comparison.settings["predicted correctly"] == f"{right} of 40"
    assert f"torch {version('torch')}" in comparison.settings["versions"]


def test_chart_holds_the_means(comparison: Comparison) -> None:
    _, ax = plot_metric(comparison, "sufficiency")
    widths = [patch.get_width() for patch in ax.patches]  # type: ignore[attr-defined]
    means = comparison.values[:, 1].mean(axis=1)
    assert widths == pytest.approx(means.tolist())
    assert "lower is better" in ax.get_title(loc="right")


def constant(value: float) -> Method:
    def scores(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
        return torch.full(batch.input_ids.shape, value)

    return Method("constant", scores, "the same score everywhere")


def test_a_failing_method_is_named_and_the_others_go_on() -> None:
    text_model = planted_text_model()
    wrong_shape = replace(constant(1.0), function=lambda *_: torch.zeros(1))
    result = compare(
        text_model,
        ["good film", "bad plot"],
        methods=[wrong_shape, "random", replace(constant(torch.nan), name="nan")],
        metrics=["comprehensiveness", "cohesion"],
        show_progress=False,
    )
    assert list(result.failures) == ["constant", "nan"]
    assert "'constant' returned shape (1,)" in result.failures["constant"]
    assert "'nan' returned NaN" in result.failures["nan"]
    assert np.isnan(result.values[0]).all()
    assert np.isfinite(result.values[1, 0]).all()
    assert [m.name for m in result.finished] == ["random"]
    assert "constant failed: ValueError: The method 'constant'" in result.table()
    assert np.isnan(result.interval("constant", "comprehensiveness").mean)
    assert np.isnan(result.average_rank("constant", "faithfulness").mean)
    assert result.average_rank("random", "faithfulness").mean == 1
    with pytest.raises(KeyError, match="'nan' failed: ValueError"):
        result.scores("nan", 0)


def test_a_method_that_fails_late_has_no_half_values() -> None:
    def fails_on_long_texts(
        text_model: TextModel, batch: TextBatch, target: Tensor
    ) -> Tensor:
        if batch.input_ids.shape[1] > 4:
            raise MemoryError("too long")
        return torch.zeros(batch.input_ids.shape)

    result = compare(
        planted_text_model(),
        ["good film", "bad plot the film the film"],
        methods=[fails_on_long_texts, "random"],
        metrics=["comprehensiveness"],
        tokens_per_batch=6,
        show_progress=False,
    )
    assert result.failures == {"fails_on_long_texts": "MemoryError: too long"}
    assert np.isnan(result.values[0]).all()


def test_nothing_is_left_when_every_method_fails() -> None:
    with pytest.raises(RuntimeError, match=r"Every method failed\. constant: Val"):
        compare(
            planted_text_model(),
            ["good"],
            methods=[constant(torch.nan)],
            metrics=["comprehensiveness"],
            show_progress=False,
        )


def test_bad_texts_are_named() -> None:
    text_model = planted_text_model()
    with pytest.raises(TypeError, match="texts is the string 'good film'"):
        compare(text_model, "good film")
    with pytest.raises(ValueError, match="texts is empty"):
        compare(text_model, [])
    with pytest.raises(ValueError, match="'  ' has no tokens"):
        compare(text_model, ["good", "  "])
    with pytest.raises(ValueError, match="labels has 1 entries for 2 texts"):
        compare(text_model, ["good", "bad"], labels=[1])
    with pytest.raises(ValueError, match="labels holds 2; the model has 2 classes"):
        compare(text_model, ["good", "bad"], labels=[1, 2])


def test_metrics_and_methods_can_be_chosen() -> None:
    result = compare(
        planted_text_model(),
        ["good film plot", "bad film the"],
        methods=[constant(0.0)],
        metrics=[Comprehensiveness(bins=[1.0])],
        show_progress=False,
    )
    assert result.values.shape == (1, 1, 2)
    # Everything is replaced: what is left is an even chance.
    expected = [text.probability - 0.5 for text in result.texts]
    assert result.values[0, 0].tolist() == pytest.approx(expected)


def test_progress_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    compare(
        planted_text_model(),
        ["good film"],
        methods=["random"],
        metrics=["comprehensiveness"],
    )
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Explaining and measuring" in captured.err


def test_page_is_whole_and_safe(comparison: Comparison, tmp_path: Path) -> None:
    first = replace(
        comparison.texts[0],
        tokens=("<script>", *comparison.texts[0].tokens[1:]),
    )
    changed = replace(comparison, texts=(first, *comparison.texts[1:]))
    path = changed.to_html(tmp_path / "report" / "index.html", title="A & B", n_texts=3)
    page = path.read_text(encoding="utf-8")
    assert page.count("<h3>") == 3
    assert "<script" not in page
    assert "http" not in page
    assert page.count("data:image/svg+xml;base64,") == 4
    assert "<h1>A &amp; B</h1>" in page
    for method in comparison.methods:
        name = method.name.replace("_", "_<wbr>")
        assert f'<th scope="row">{name}</th>' in page
        # A row for each text, and the description.
        both = {f"<dt>{name}</dt>", f"<dt>{method.name}</dt>"}
        assert sum(page.count(each) for each in both) == 4
    assert sorted(p.name for p in path.parent.iterdir()) == ["index.html"]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_values(comparison: Comparison) -> None:
    text_model = planted_text_model()
    text_model.model.cuda()
    on_gpu = compare(
        text_model,
        planted_texts(),
        methods=METHODS,
        metrics=["comprehensiveness", "sufficiency"],
        show_progress=False,
    )
    assert np.allclose(on_gpu.values, comparison.values, atol=1e-4)


def test_a_property_without_values_is_not_a_failure(tmp_path: Path) -> None:
    result = compare(
        planted_text_model(),
        ["good film", "bad film"],  # one text a class
        methods=["attention_gradient", "random"],
        metrics=["cohesion", "silhouette_gain"],
        show_progress=False,
    )
    ranks = result.table().split("CONSISTENCY")[0]
    assert ranks.count("no value") == 2
    assert "failed" not in ranks
    page = result.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert ">failed<" not in page
