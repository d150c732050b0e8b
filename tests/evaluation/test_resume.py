"""Runs that are killed and started again, and folders with other arguments."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_attngrad.evaluation import Comparison, Method, TextBatch, TextModel, compare
from captum_attngrad.metrics import Comprehensiveness
from tests.evaluation.planted import planted_text_model, planted_texts

METHODS = ("attention_gradient", "integrated_gradients", "leave_one_out", "random")
METRICS = ("comprehensiveness", "infidelity", "silhouette", "class_distance_ratio")
TEXTS = planted_texts(24)
TOKENS = 40


class Killed(BaseException):
    """Ends a run as Ctrl-C does: nothing catches it."""


def run(output: Path | None, methods: tuple[str | Method, ...] = METHODS) -> Comparison:
    return compare(
        planted_text_model(),
        TEXTS,
        methods=methods,
        metrics=METRICS,
        seed=3,
        output=output,
        show_progress=False,
        tokens_per_batch=TOKENS,
    )


def assert_same(first: Comparison, second: Comparison) -> None:
    assert np.array_equal(first.values, second.values, equal_nan=True)
    assert np.array_equal(first.curves, second.curves)
    for name, values in first.replicates.items():
        assert np.array_equal(values, second.replicates[name])
    for one, other in zip(first.texts, second.texts, strict=True):
        assert one.tokens == other.tokens
        for name, scores in one.scores.items():
            assert np.array_equal(scores, other.scores[name])


def without_seconds(comparison: Comparison) -> str:
    return replace(comparison, seconds=np.zeros_like(comparison.seconds)).table()


def counting(calls: list[int], stop_after: int | None) -> Method:
    def method(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
        if stop_after is not None and len(calls) == stop_after:
            raise Killed
        calls.append(len(batch))
        return torch.arange(batch.input_ids.shape[1]).float().expand(len(batch), -1)

    return Method("counting", method, "position")


def n_batches() -> int:
    return len(list(planted_text_model().batches(TEXTS, None, TOKENS)))


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3, 5])
def test_a_killed_run_goes_on_and_repeats_nothing(
    stop_after: int, tmp_path: Path
) -> None:
    whole = run(None, (*METHODS, counting([], None)))
    before: list[int] = []
    with pytest.raises(Killed):
        run(tmp_path, (*METHODS, counting(before, stop_after)))
    kept = sorted(tmp_path.rglob("*.npz"))
    assert bool(kept)
    content = {path: path.read_bytes() for path in kept}
    after: list[int] = []
    resumed = run(tmp_path, (*METHODS, counting(after, None)))
    assert_same(whole, resumed)
    # A warm-up of one text at the start of each process, and each batch once.
    full = before[1:] + after[1:]
    assert len(full) == n_batches()
    assert sum(full) == len(TEXTS)
    scores = [path for path in kept if path.stem.endswith("scores")]
    assert all(path.read_bytes() == content[path] for path in scores)
    # Once finished, nothing is run at all.
    assert_same(whole, run(tmp_path, (*METHODS, counting([], 0))))


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.evaluation.test_resume import run
import torch
torch.set_num_threads(1)
print("ready", flush=True)
run(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_files", [1, 4, 9, 17])
def test_a_process_killed_at_any_moment(n_files: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            if len(list(tmp_path.rglob("*.npz"))) >= n_files:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.001)
        process.wait(timeout=120)
    assert process.returncode == -signal.SIGKILL, "it was over before it was killed"
    assert len(list(tmp_path.rglob("*.npz"))) < 60
    assert_same(run(None), run(tmp_path))


def test_damaged_parts_are_made_again(tmp_path: Path) -> None:
    whole = run(tmp_path)
    parts = sorted(tmp_path.rglob("*.npz"))
    parts[0].write_bytes(b"")
    parts[1].write_bytes(parts[1].read_bytes()[:50])
    parts[-1].unlink()
    # What half a write leaves behind has another name and is passed over.
    (parts[0].parent / f".{parts[0].name}.1.tmp").write_bytes(b"half")
    with pytest.warns(UserWarning, match="damaged .* computed again") as caught:
        assert_same(whole, run(tmp_path))
    (notice,) = [str(w.message) for w in caught if w.category is UserWarning]
    assert f"{parts[0].name} (it is cut or overwritten)" in notice
    assert parts[1].name in notice
    assert parts[-1].name not in notice  # it is missing, not damaged
    assert_same(whole, run(tmp_path))  # without another notice


def test_one_changed_byte_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    texts = TEXTS[:3]

    def small() -> Comparison:
        return compare(
            planted_text_model(),
            texts,
            methods=["random", "saliency"],
            metrics=["comprehensiveness", "silhouette", "pgd_attack_auroc"],
            output=tmp_path,
            show_progress=False,
        )

    whole = small()
    assert whole.diagnostics
    kinds = ("texts", "00000-scores", "00001-values", "diagnostics")
    for number, kind in enumerate(kinds):
        path = tmp_path / "parts" / f"00000-{kind}.npz"
        good = path.read_bytes()
        for place in range(number, len(good), 1 + len(good) // 12):
            damaged = bytearray(good)
            damaged[place] ^= 0xFF
            path.write_bytes(damaged)
            with pytest.warns(UserWarning, match=rf"computed again: {path.name} \("):
                again = small()
            assert_same(whole, again)
            assert again.diagnostics == whole.diagnostics
            assert again.notes == whole.notes


def test_parts_that_vanish_or_break_later_are_named(tmp_path: Path) -> None:
    result = run(tmp_path)
    path = sorted(tmp_path.rglob("*-scores.npz"))[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RuntimeError, match=rf"are damaged: {path.name} \(it is cut"):
        list(result.texts)
    path.unlink()
    with pytest.raises(
        RuntimeError, match=r"output folder are .* to recompute what is m"
    ):
        list(result.texts)


def test_a_part_in_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    whole = run(tmp_path)
    scores = sorted(tmp_path.rglob("*-scores.npz"))
    scores[1].write_bytes(scores[0].read_bytes())
    with pytest.warns(UserWarning, match="does not match its checksum"):
        assert_same(whole, run(tmp_path))


def test_two_runs_at_once_are_not_accepted(tmp_path: Path) -> None:
    def meanwhile(text_model: TextModel, batch: TextBatch, target: Tensor) -> Tensor:
        with pytest.raises(ValueError, match=r"Another run is writing to .*process"):
            run(tmp_path)
        return torch.zeros(batch.input_ids.shape)

    first = run(tmp_path, (Method("meanwhile", meanwhile, "starts another run"),))
    assert not first.failures
    # The lock is given back after a run, whether it was refused or not.
    with pytest.raises(ValueError, match="with other arguments"):
        run(tmp_path)
    again = Method("meanwhile", counting([], 0).function, "starts another run")
    assert_same(first, run(tmp_path, (again,)))


TWO = """
import sys
from pathlib import Path
from tests.evaluation.test_resume import run
sys.stdin.readline()
try:
    run(Path(sys.argv[1]), (sys.argv[2], "random"))
except ValueError as error:
    print("refused:", error)
else:
    print("finished")
"""


@pytest.mark.slow
def test_of_two_runs_started_together_one_is_accepted(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(tmp_path), method],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for method in ("integrated_gradients", "lime")
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate(timeout=300)[0] for process in processes)
    assert said[0] == "finished\n"
    assert said[1].startswith("refused: ")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, r"seed 3 there, 4 now"),
        ({"texts": TEXTS[:-1]}, r'texts \{"number": 24.*"number": 23'),
        ({"methods": METHODS[:2]}, r'order of methods \["attention_gradient", "int'),
        ({"metrics": ["comprehensiveness"]}, r"metrics \[.*infidelity"),
        ({"metrics": [Comprehensiveness([0.3])]}, r"metrics .*0\.3"),
        ({"tokens_per_batch": 41}, r"tokens_per_batch 40 there, 41 now"),
    ],
)
def test_other_arguments_are_refused_and_named(
    change: dict[str, object], named: str, tmp_path: Path
) -> None:
    run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    arguments: dict[str, object] = {
        "texts": TEXTS,
        "methods": METHODS,
        "metrics": METRICS,
        "seed": 3,
        "tokens_per_batch": TOKENS,
        "output": tmp_path,
        "show_progress": False,
    }
    with pytest.raises(ValueError, match=f"with other arguments.*{named}"):
        compare(planted_text_model(), **{**arguments, **change})  # type: ignore[arg-type]
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}


def test_other_weights_are_refused(tmp_path: Path) -> None:
    run(tmp_path)
    text_model = planted_text_model()
    with torch.no_grad():
        text_model.embedding.weight[2, 1] += 1e-3  # type: ignore[operator,index]
    with pytest.raises(ValueError, match=r'model \{.*"weights".* now'):
        compare(
            text_model,
            TEXTS,
            methods=METHODS,
            metrics=METRICS,
            seed=3,
            output=tmp_path,
            show_progress=False,
            tokens_per_batch=TOKENS,
        )


def test_a_damaged_or_missing_list_of_arguments(tmp_path: Path) -> None:
    run(tmp_path)
    (manifest,) = tmp_path.rglob("arguments.json")
    assert json.loads(manifest.read_text("utf-8"))["seed"] == 3
    manifest.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is damaged"):
        run(tmp_path)
    manifest.unlink()
    with pytest.raises(ValueError, match="not the arguments they came from"):
        run(tmp_path)


def test_a_failed_method_is_tried_again(tmp_path: Path) -> None:
    broken = Method("flaky", lambda *_: torch.zeros(1), "sometimes fails")
    first = run(tmp_path, ("random", broken))
    assert list(first.failures) == ["flaky"]
    works = Method(
        "flaky",
        lambda text_model, batch, target: torch.ones(batch.input_ids.shape),
        "sometimes fails",
    )
    second = run(tmp_path, ("random", works))
    assert not second.failures
    assert_same(run(None, ("random", works)), second)


def test_the_batch_size_does_not_matter() -> None:
    runs = [
        compare(
            planted_text_model(),
            TEXTS,
            methods=(*METHODS, "lime", "gradient_shap"),
            metrics=METRICS,
            seed=3,
            show_progress=False,
            tokens_per_batch=size,
        )
        for size in (1, 50, 10_000)
    ]
    for other in runs[1:]:
        for one, text in zip(runs[0].texts, other.texts, strict=True):
            for name, scores in one.scores.items():
                np.testing.assert_allclose(scores, text.scores[name], 1e-4, 1e-6)
        np.testing.assert_allclose(runs[0].values, other.values, rtol=1e-4, atol=1e-5)
