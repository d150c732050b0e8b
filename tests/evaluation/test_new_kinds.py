"""Kinds of metrics that the package does not know: they run, resume and can fail."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_attngrad.evaluation import Comparison, Method, TextBatch, TextModel, compare
from captum_attngrad.metrics import Batch, Corpus, ExplainedBatch, Metric
from tests.evaluation.planted import planted_text_model, planted_texts

TEXTS = planted_texts(12)


class Declared(Metric):
    property = "plausibility"
    higher_is_better = True
    value_range = (0.0, float("inf"))
    best_value = float("inf")
    paper = ""
    description = "a kind of its own"


class ShareOfOpinions(Declared):
    """Agreement with a word list: no masks, no perturbation, no vectors."""

    name = "share_of_opinions"
    has_diagnostics = True

    def measure_batch(self, explained: ExplainedBatch) -> Tensor:
        tokens = explained.batch.texts.tokens
        shares = []
        for row, scores in zip(tokens, explained.scores.abs(), strict=True):
            wanted = torch.tensor([t in ("good", "bad", "fine") for t in row])
            mine = scores[: len(row)]
            shares.append(float(mine[wanted].sum() / mine.sum()))
        return torch.tensor(shares, dtype=torch.float64)

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        lengths = [len(tokens) for tokens in batch.texts.tokens]
        return {"length": torch.tensor(lengths, dtype=torch.float64)}


class LargestOverAll(Declared):
    """One number for all texts, from a vector for each, against uniform scores."""

    name = "largest_over_all"
    measures_vectors = True
    needs_uniform = True
    per_example = False

    def measure_batch(self, explained: ExplainedBatch) -> Tensor:
        scores = explained.scores.abs()
        return torch.stack([scores.amax(dim=1), scores.sum(dim=1)], dim=1)

    def measure_corpus(self, corpus: Corpus) -> Tensor:
        assert corpus.uniform is not None
        share = corpus.measured[:, 0].sum() / corpus.measured[:, 1].sum()
        return share - corpus.uniform[:, 0].sum() / corpus.uniform[:, 1].sum()


class RelativeToMean(ShareOfOpinions):
    """Values of single texts that depend on all of them."""

    name = "relative_to_mean"

    def key(self) -> str:
        return ShareOfOpinions.name

    def measure_corpus(self, corpus: Corpus) -> Tensor:
        return corpus.measured / corpus.measured.mean()


class MasksAndCost(Declared):
    """The drop for the first token, per forward pass: masks and cost together."""

    name = "drop_per_pass"

    def masks(self, attributions: Tensor, attributable: Tensor) -> Tensor:
        first = torch.zeros_like(attributable)
        first[:, 0] = True
        return first.unsqueeze(1)

    def measure_batch(self, explained: ExplainedBatch) -> Tensor:
        assert explained.full is not None
        assert explained.masked is not None
        assert explained.cost is not None
        drop = explained.full.p - explained.masked.p[:, 0]
        return drop / (1 + explained.cost.forward_passes)


KINDS = (ShareOfOpinions(), LargestOverAll(), RelativeToMean(), MasksAndCost())


def positions(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
    return torch.arange(1.0, 1 + batch.input_ids.shape[1]).expand(len(batch), -1)


def run(output: Path | None, method: Method) -> Comparison:
    return compare(
        planted_text_model(),
        TEXTS,
        methods=[method, "leave_one_out"],
        metrics=[*KINDS, "comprehensiveness"],
        output=output,
        show_progress=False,
        tokens_per_batch=30,
    )


def test_values_are_those_of_the_definition() -> None:
    result = run(None, Method("positions", positions, ""))
    assert not result.notes
    words = [text.split() for text in TEXTS]
    shares, largest, total = [], 0, 0
    for row in words:
        n = len(row)
        opinions = sum(
            i for i, word in enumerate(row, 1) if word in ("good", "bad", "fine")
        )
        shares.append(opinions / (n * (n + 1) / 2))
        largest, total = largest + n, total + n * (n + 1) // 2
    np.testing.assert_allclose(result.values[0, 0], shares, rtol=1e-6)
    np.testing.assert_allclose(
        result.values[0, 2], np.array(shares) / np.mean(shares), rtol=1e-6
    )
    expected = largest / total - len(words) / sum(len(row) for row in words)
    interval = result.interval("positions", "largest_over_all")
    assert interval.mean == pytest.approx(expected, rel=1e-5)
    assert interval.low < interval.mean < interval.high
    assert result.diagnostics == {"length": np.mean([len(row) for row in words])}
    # Leave-one-out finds the words that matter.
    assert result.beats("leave_one_out", "positions", "share_of_opinions")
    assert not result.beats("positions", "leave_one_out", "largest_over_all")
    assert np.isfinite(result.values[:, 3]).all()


def test_a_stopped_run_is_resumed(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    calls = []

    def stopping(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
        calls.append(len(batch))
        if len(calls) == 3:
            raise Killed
        return positions(text_model, batch, target)

    whole = run(None, Method("positions", positions, ""))
    with pytest.raises(Killed):
        run(tmp_path, Method("positions", stopping, ""))
    assert list(tmp_path.rglob("*-values.npz"))
    resumed = run(tmp_path, Method("positions", positions, ""))
    for name in ("share_of_opinions", "largest_over_all", "relative_to_mean"):
        np.testing.assert_array_equal(whole.means(name), resumed.means(name))
    np.testing.assert_array_equal(
        whole.replicates["largest_over_all"], resumed.replicates["largest_over_all"]
    )
    assert whole.diagnostics == resumed.diagnostics


def test_a_number_of_the_wrong_shape_is_named() -> None:
    class NoVector(LargestOverAll):
        name = "no_vector"

        def key(self) -> str:
            return self.name

        def measure_batch(self, explained: ExplainedBatch) -> Tensor:
            return explained.scores[:, 0]

    class OneForAll(ShareOfOpinions):
        name = "one_for_all"

        def measure_corpus(self, corpus: Corpus) -> Tensor:
            return corpus.measured.mean()

    result = compare(
        planted_text_model(),
        TEXTS,
        methods=["random"],
        metrics=[NoVector(), OneForAll(), "sufficiency"],
        show_progress=False,
    )
    assert "'no_vector' returned" in result.notes["random", "no_vector"]
    assert "one vector for each text" in result.notes["random", "no_vector"]
    assert "here (12,)" in result.notes["random", "one_for_all"]
    assert result.n_values("random", "sufficiency") == 12
