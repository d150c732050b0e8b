"""What a Comparison does with its numbers: ranks, files, frames, charts."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from captum.attr import (
    IntegratedGradients,
    LayerIntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor

from captum_attngrad.evaluation import (
    Comparison,
    Method,
    TextBatch,
    TextModel,
    available_metrics,
    captum_method,
    compare,
    default_metrics,
)
from captum_attngrad.evaluation.explaining import explainer
from captum_attngrad.evaluation.metric_names import resolve_metrics
from captum_attngrad.evaluation.registry import resolve_methods
from captum_attngrad.evaluation.results.bootstrap import (
    MIN_PAIRS,
    mean_interval,
    not_beaten,
    ranks,
)
from captum_attngrad.evaluation.store.arrays import pack, text_array, unpack
from captum_attngrad.metrics import (
    AttackLocalization,
    NeighborSubstitution,
    Resilience,
    TokenAttack,
)
from tests.evaluation.planted import planted_text_model, planted_texts


@pytest.fixture(scope="module")
def result() -> Comparison:
    broken = Method("broken", lambda *_: torch.zeros(1), "returns nonsense")
    return compare(
        planted_text_model(),
        planted_texts(16),
        labels=[(i + 1) % 2 for i in range(16)],
        methods=["leave_one_out", "attention_weights", broken, "random"],
        metrics=[
            "comprehensiveness",
            "inhibitor_words",
            Resilience(NeighborSubstitution(n_neighbors=3)),
            "silhouette",
            "davies_bouldin",
            AttackLocalization(TokenAttack(max_fraction=0.5, n_neighbors=3)),
            "forward_passes",
        ],
        show_progress=False,
    )


def test_every_property_is_measured_and_random_loses(result: Comparison) -> None:
    assert result.properties == (
        "faithfulness",
        "resilience",
        "consistency",
        "sensitivity",
        "cost",
    )
    for metric in ("comprehensiveness", "neighbors_spearman", "silhouette"):
        assert result.beats("leave_one_out", "random", metric)
    for metric in (m.name for m in result.metrics if m.property != "cost"):
        assert not result.beats("random", "leave_one_out", metric)
    assert result.interval("random", "forward_passes").mean == 0
    # One pass for the text, and one without each of its tokens.
    lengths = [len(text.tokens) for text in result.texts]
    expected = 1 + np.mean(lengths)
    assert result.interval("leave_one_out", "forward_passes").mean == expected


def test_methods_without_inhibitors_have_no_number_and_the_reason(
    result: Comparison,
) -> None:
    assert np.isnan(result.interval("attention_weights", "inhibitor_words").mean)
    marks = result.not_beaten("inhibitor_words")
    names = [method.name for method in result.methods]
    assert not marks[names.index("attention_weights")]
    rows = result.table().splitlines()
    named = [row for row in rows if "no inhibitors named" in row]
    assert named[0].startswith("attention_weights")
    # It has the last place where the others have a value.
    of_the_other = ranks(result.means("comprehensiveness")[[0, 1, 3]], True)[1]
    rank = result.average_rank("attention_weights", "faithfulness").mean
    assert rank == (of_the_other + 3) / 2


def test_average_rank_by_hand(result: Comparison) -> None:
    names = [method.name for method in result.finished]
    found = {}
    for metric in ("silhouette", "davies_bouldin"):
        means = {name: result.interval(name, metric).mean for name in names}
        order = sorted(names, key=means.__getitem__, reverse=metric == "silhouette")
        for place, name in enumerate(order, start=1):
            found.setdefault(name, []).append(place)
    for name in names:
        mean, low, high = result.average_rank(name, "consistency")
        assert mean == np.mean(found[name])
        assert 1 <= low <= high <= 3


def test_ranks_of_equal_and_missing_values() -> None:
    values = np.array([0.5, 0.9, 0.5, np.nan])
    assert ranks(values, True).tolist() == [2.5, 1.0, 2.5, 4.0]
    assert ranks(values, False).tolist() == [1.5, 3.0, 1.5, 4.0]
    assert ranks(np.full(3, np.nan), True).tolist() == [2.0, 2.0, 2.0]


def test_missing_values_are_left_out_of_means_and_pairs() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(0.0, 1.0, 60)
    second = first - 0.5
    first[::2] = np.nan
    assert mean_interval(first).mean == pytest.approx(np.nanmean(first))
    # The missing half would hide a difference that holds for every pair.
    assert not_beaten(np.stack([first, second]), True) == [True, False]
    assert not_beaten(np.stack([first, np.full(60, np.nan)]), True) == [True, False]


@pytest.mark.parametrize("n", [1, MIN_PAIRS - 1, MIN_PAIRS])
def test_nothing_wins_with_too_few_texts(n: int) -> None:
    values = np.stack([np.ones(n), np.zeros(n)])
    assert not_beaten(values, True) == [True, n < MIN_PAIRS]


def test_difference_is_paired(result: Comparison) -> None:
    first = result.values[0, 0]
    random = result.values[3, 0]
    mean, low, high = result.difference("leave_one_out", "random", "comprehensiveness")
    assert mean == pytest.approx((first - random).mean())
    assert low <= mean <= high
    equal = result.difference("random", "random", "davies_bouldin")
    assert tuple(equal) == (0, 0, 0)


def test_save_and_load(result: Comparison, tmp_path: Path) -> None:
    path = result.save(tmp_path / "deep" / "result.npz")
    loaded = Comparison.load(path)
    assert loaded.table() == result.table()
    assert loaded.settings == result.settings
    assert loaded.failures == result.failures
    assert loaded.metrics == result.metrics
    assert np.array_equal(loaded.curves, result.curves, equal_nan=True)
    for one, other in zip(result.texts, loaded.texts, strict=True):
        assert one.tokens == other.tokens
        assert (one.predicted, one.label) == (other.predicted, other.label)
        assert one.probability == other.probability
    assert np.array_equal(loaded.scores("random", 5), result.scores("random", 5))
    assert [file.name for file in path.parent.iterdir()] == ["result.npz"]
    again = loaded.save(tmp_path / "again.npz")
    assert Comparison.load(again).table() == result.table()


def test_what_is_no_comparison_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Comparison.load(tmp_path / "missing.npz")
    for content in (b"", b"text", b"PK\x03\x04broken"):
        (tmp_path / "file.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"file.npz' does not hold a comparison"):
            Comparison.load(tmp_path / "file.npz")


def test_what_is_damaged_is_named(result: Comparison, tmp_path: Path) -> None:
    path = result.save(tmp_path / "result.npz")
    good = path.read_bytes()
    for place in range(0, len(good), 1 + len(good) // 40):
        damaged = bytearray(good)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"result.npz' does not hold a comparison"):
            Comparison.load(path)
    start = good.index(b"curves.npy") + 200
    path.write_bytes(good[:start] + b"damaged" + good[start + 7 :])
    with pytest.raises(ValueError, match=r"checksum \(in it, 'curves': "):
        Comparison.load(path)
    path.write_bytes(good[:-100])
    with pytest.raises(ValueError, match="it is cut or overwritten"):
        Comparison.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curves": None}, "it lacks the entry 'curves'"),
        ({"scores/0": None}, "it lacks the entry 'scores/0'"),
        ({"about": None}, "it lacks the entry 'about'"),
        ({"about": np.arange(9, dtype=np.uint8)}, "its entry 'about' is damaged"),
        ({"about": text_array([1])}, "its entry 'about' is damaged"),
        ({"about": text_array({"format": 2})}, "it lacks 'methods'"),
        ({"about": text_array({"format": 1})}, "has format 1, expected 2"),
        ({"about": text_array({"format": 2, "methods": 3})}, "its entries do not fit"),
        ({"values": np.zeros((1, 2, 3))}, r"'values' has shape \(1, 2, 3\), expected"),
        ({"seconds": np.zeros(0)}, r"'seconds' has shape \(0,\), expected"),
        ({"scores/0": np.zeros(1)}, r"'scores/0' has shape \(1,\), expected"),
    ],
)
def test_what_is_missing_or_does_not_fit_is_named(
    result: Comparison, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = result.save(tmp_path / "result.npz")
    arrays = {**unpack(path.read_bytes()), **change}
    path.write_bytes(pack({k: v for k, v in arrays.items() if v is not None}))
    with pytest.raises(ValueError, match=message):
        Comparison.load(path)


def test_comparisons_of_earlier_versions_are_read(
    result: Comparison, tmp_path: Path
) -> None:
    path = result.save(tmp_path / "result.npz")
    np.savez_compressed(path, **unpack(path.read_bytes()))  # without a checksum
    assert Comparison.load(path).table() == result.table()


def test_frame_is_tidy(result: Comparison) -> None:
    pytest.importorskip("pandas")
    frame = result.to_frame()
    assert list(frame) == ["example", "method", "metric", "property", "value"]
    chosen = frame[(frame.method == "random") & (frame.metric == "comprehensiveness")]
    assert chosen.example.tolist() == list(range(16))
    assert np.allclose(chosen.value, result.values[3, 0])
    whole = frame[(frame.metric == "davies_bouldin") & (frame.method == "random")]
    assert whole.example.tolist() == [-1]
    assert frame[frame.method == "broken"].value.isna().all()


def test_frame_of_intervals(result: Comparison) -> None:
    pytest.importorskip("pandas")
    frame = result.to_frame(intervals=True)
    assert list(frame) == ["method", "metric", "property", "value", "low", "high"]
    assert len(frame) == len(result.methods) * len(result.metrics)
    for row in frame.itertuples():
        expected = result.interval(row.method, row.metric)
        assert np.allclose([row.value, row.low, row.high], expected, equal_nan=True)
    assert "comprehensiveness" in frame.to_csv(index=False)


def test_a_comparison_prints_as_its_table(result: Comparison) -> None:
    assert str(result) == result.table()
    assert repr(result) == "Comparison(4 methods, 7 metrics, 16 texts)"


def test_a_comparison_is_a_small_table_in_notebooks(result: Comparison) -> None:
    named = replace(
        result,
        methods=(replace(result.methods[0], name="<b>own</b>"), *result.methods[1:]),
    )
    page = named._repr_html_()
    tree = ElementTree.fromstring(page)
    assert tree.tag == "table"
    assert {element.tag for element in tree.iter()} <= set(
        "table caption thead tbody tr th td b small".split()
    )
    head, *rows = tree.iter("tr")
    titles = ["".join(cell.itertext()) for cell in head]
    assert titles == ["method", "faithfulness ↓", "consistency ↓", "s/text"]
    assert [row[0].text for row in rows] == [m.name for m in named.methods]
    few = replace(result, metrics=result.metrics[:1], values=result.values[:, :1])
    mean = result.interval("leave_one_out", "comprehensiveness").mean
    assert f"<td><b>{mean:.3f}</b>" in few._repr_html_()


def test_plots(result: Comparison) -> None:
    figure = result.plot("bars", "consistency")
    assert [ax.get_title(loc="right") for ax in figure.axes] == [
        "silhouette ↑ (higher is better)",
        "davies_bouldin ↓ (lower is better)",
    ]
    cost = result.plot("cost").axes[0]
    assert {text.get_text() for text in cost.texts} == {
        "leave_one_out",
        "attention_weights",
        "random",
    }
    (curves,) = result.plot("curves").axes
    lines = {line.get_label(): line for line in curves.lines}
    full = np.mean([text.probability for text in result.texts])
    for line in lines.values():
        assert line.get_xdata()[0] == 0
        assert line.get_ydata()[0] == pytest.approx(full, rel=1e-6)
    # Everything is replaced at the end, whatever the method.
    ends = [line.get_ydata()[-1] for line in lines.values()]
    assert ends == pytest.approx([0.5] * 3)
    assert lines["leave_one_out"].get_ydata()[2] < lines["random"].get_ydata()[2]
    with pytest.raises(ValueError, match="kind is 'pie'"):
        result.plot("pie")
    with pytest.raises(KeyError, match="no property 'beauty'"):
        result.plot("bars", "beauty")


def test_page_shows_failures_and_every_property(
    result: Comparison, tmp_path: Path
) -> None:
    page = result.to_html(tmp_path / "i.html", n_texts=1).read_text(encoding="utf-8")
    for heading in ("Faithfulness", "Resilience", "Consistency", "Sensitivity"):
        assert f"<h2>{heading}</h2>" in page
    assert "broken failed: ValueError: The method &#39;broken&#39; returned" in page
    assert "<b>broken</b>" not in page
    assert "attack success" in page


def test_scores_by_name_and_place(result: Comparison) -> None:
    text = result.texts[3]
    assert np.array_equal(result.scores("random", 3), text.scores["random"])
    with pytest.raises(IndexError, match="no text 16; expected 0 to 15"):
        result.scores("random", 16)
    with pytest.raises(KeyError, match="no method 'shap'"):
        result.scores("shap", 0)


def positions(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    """The later, the more important."""
    return torch.arange(batch.input_ids.shape[1]).float().expand(len(batch), -1)


def test_captums_instances_and_functions_are_methods_as_they_are() -> None:
    text_model = planted_text_model()
    model, texts = text_model.model, planted_texts(4)
    saliency = Saliency(model)
    result = compare(
        text_model,
        texts,
        methods=[
            positions,
            saliency,
            captum_method(IntegratedGradients(model), "ig", baselines="zero"),
            LayerIntegratedGradients(model, text_model.embedding),
            captum_method(NoiseTunnel(Saliency(model)), nt_samples=3, stdevs=0.1),
            "saliency",
            "integrated_gradients_zero",
        ],
        metrics=["comprehensiveness"],
        show_progress=False,
    )
    assert not result.failures
    assert result.methods[0].description == "The later, the more important."
    assert [method.name for method in result.methods[:5]] == [
        "positions",
        "Saliency",
        "ig",
        "LayerIntegratedGradients",
        "NoiseTunnel",
    ]
    for text in result.texts:
        assert np.allclose(text.scores["Saliency"], text.scores["saliency"])
        assert np.allclose(text.scores["ig"], text.scores["integrated_gradients_zero"])
        assert text.scores["positions"].tolist() == list(range(len(text.tokens)))
    assert saliency.forward_func is model  # the user's own stays as it is


def test_what_is_no_method_or_metric_is_named() -> None:
    with pytest.raises(TypeError, match="methods holds 3; expected a name"):
        resolve_methods([3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="methods is the string 'random'"):
        resolve_methods("random")
    with pytest.raises(TypeError, match="metrics holds 3"):
        resolve_metrics([3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="metrics is the string 'cohesion'"):
        resolve_metrics("cohesion")
    with pytest.raises(ValueError, match=r"no metric named 'auc'.*comprehensiveness"):
        resolve_metrics(["auc"])
    with pytest.raises(ValueError, match="'cohesion' was given twice"):
        resolve_metrics(["cohesion", "cohesion"])
    with pytest.raises(ValueError, match="metrics is empty"):
        resolve_metrics([])
    with pytest.raises(TypeError, match="attribution is 'x'"):
        captum_method("x")  # type: ignore[arg-type]


def test_metric_names_are_unique_and_the_default_has_all_properties() -> None:
    names = available_metrics()
    assert len(set(names)) == len(names)
    assert {metric.property for metric in default_metrics()} == {
        "faithfulness",
        "resilience",
        "consistency",
        "sensitivity",
        "sanity",
        "cost",
    }
    assert [m.name for m in default_metrics()] == list(names[: len(default_metrics())])


def test_a_metric_that_fails_is_reported_and_the_others_go_on() -> None:
    class Broken(type(default_metrics()[0])):  # type: ignore[misc]
        name = "broken_metric"

        def value(self, *args: object) -> Tensor:
            raise RuntimeError("not today")

    result = compare(
        planted_text_model(),
        planted_texts(4),
        methods=["random", "saliency"],
        metrics=[Broken(), "sufficiency"],
        show_progress=False,
    )
    assert np.isnan(result.values[:, 0]).all()
    assert np.isfinite(result.values[:, 1]).all()
    assert (
        "broken_metric could not be measured for any method: RuntimeError: not today"
        in result.table()
    )


def test_replacing_a_field_keeps_the_rest_usable(result: Comparison) -> None:
    shorter = replace(result, metrics=result.metrics[:1], values=result.values[:, :1])
    assert shorter.properties == ("faithfulness",)


def test_only_affected_texts_are_explained_again() -> None:
    text_model = planted_text_model()
    batch = text_model.batch(["good film", "bad plot", "fine actor good"], [1, 2, 3])
    asked: list[TextBatch] = []

    def ones(text_model: TextModel, texts: TextBatch, target: Tensor) -> Tensor:
        asked.append(texts)
        return torch.ones(texts.input_ids.shape)

    affected = torch.tensor([True, False, True])
    explain = explainer(text_model, Method("ones", ones, ""), batch)(affected)
    scores = explain(batch.input_ids, batch.attention_mask, torch.tensor([1, 0, 1]))
    assert scores.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 1]]
    assert [texts.tokens for texts in asked] == [(batch.tokens[0], batch.tokens[2])]
    none = torch.zeros(3, dtype=torch.bool)
    nothing = explainer(text_model, Method("ones", ones, ""), batch)(none)
    assert not nothing(batch.input_ids, batch.attention_mask, torch.ones(3)).any()
    assert len(asked) == 1
