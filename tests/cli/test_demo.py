"""The demo from its arguments to its page, on sentences of our own."""

import random
from pathlib import Path

import pytest
import torch

from captum_attngrad.cli import main
from captum_attngrad.cli.demo import METHODS, METRICS
from captum_attngrad.evaluation.metric_names import resolve_metrics
from captum_attngrad.evaluation.registry import resolve_methods

N_ROWS = 10_605
GOOD = ("lovely", "moving", "warm", "witty")
BAD = ("dull", "clumsy", "stale", "noisy")
NOUNS = ("film", "story", "cast", "plot")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds a data file of the expected form."""
    generator = random.Random(0)
    lines = []
    for number in range(1, N_ROWS + 1):
        good = generator.random() < 0.5
        adjective = generator.choice(GOOD if good else BAD)
        sentence = f"a {adjective} {generator.choice(NOUNS)}"
        lines.append(f"{number}\t{2.5 if good else -2.5}\t{sentence}")
    root: Path = tmp_path_factory.mktemp("cache")
    folder = root / "movie_reviews"
    folder.mkdir()
    file = folder / "movieReviewSnippets_GroundTruth.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.mark.slow
def test_demo(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setenv("CAPTUM_ATTNGRAD_CACHE", str(cache))
    output = tmp_path / "new" / "report"
    arguments = ["demo", "--output", str(output), "--limit", "12"]
    threads = torch.get_num_threads()
    assert main(arguments) == 0
    assert torch.get_num_threads() == threads
    first = capfd.readouterr()
    assert max(len(line) for line in table(first.out)) <= 100
    for title in ("FAITHFULNESS", "RESILIENCE", "CONSISTENCY", "SENSITIVITY", "COST"):
        assert first.out.count(f"\n{title}\n") == 1
    for name in METRICS:
        assert f"{name} ↑" in first.out or f"{name} ↓" in first.out
    assert "token_attack: attack success" in first.out
    assert "could not be measured" not in first.out
    assert "failed: " not in first.out
    assert str(output / "index.html") in first.out
    assert "Training" in first.err
    assert "Explaining" in first.err

    page = (output / "index.html").read_text(encoding="utf-8")
    for name in METHODS:
        assert f"<dt>{name}</dt>" in page
    assert page.count("<h3>") == 10
    assert "12 of 12" in page  # such sentences are easy

    # Again: nothing is trained or explained, and even the seconds are the same.
    assert main([*arguments, "--no-progress"]) == 0
    second = capfd.readouterr()
    assert second.err == ""
    assert second.out == first.out

    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--seed", "1"])
    assert stop.value.code == 2
    assert "with other arguments: seed 0 there, 1 now" in capfd.readouterr().err
    other = ["demo", "--output", str(tmp_path / "other"), "--limit", "12"]
    assert main([*other, "--seed", "1"]) == 0
    assert without_seconds(capfd.readouterr().out) != without_seconds(first.out)

    with pytest.raises(SystemExit) as stop:
        main(["demo", "--output", str(output), "--limit", "5000"])
    assert stop.value.code == 2
    message = capfd.readouterr().err
    assert "--limit: 5000 is more than the" in message
    assert message.count("\n") == 1


def table(output: str) -> list[str]:
    return output.split("\nReport: ")[0].splitlines()


def without_seconds(output: str) -> list[str]:
    """The table's lines without the seconds, and without rules, as long as these."""
    lines = []
    timed = False
    for line in table(output):
        timed = bool(line) and (timed or line.endswith("s/text"))
        if set(line) != {"-"}:
            lines.append(line.rsplit(maxsplit=1)[0] if timed else line)
    return lines


def test_methods_and_metrics_are_there() -> None:
    assert len(METHODS) >= 10
    assert len(resolve_methods(METHODS)) == len(METHODS)
    properties = [metric.property for metric in resolve_metrics(METRICS)]
    for name in ("faithfulness", "resilience", "consistency", "sensitivity", "cost"):
        assert properties.count(name) >= 2


def test_what_cannot_be_had_gives_status_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("sklearn")
    folder = tmp_path / "movie_reviews"
    folder.mkdir()
    (folder / "vaderSentiment-3.3.2.tar.gz").write_bytes(b"not an archive")
    monkeypatch.setenv("CAPTUM_ATTNGRAD_CACHE", str(tmp_path))
    assert main(["demo", "--output", str(tmp_path / "report")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("captum-attngrad demo: error: ")
    assert "Traceback" not in captured.err
    assert not (tmp_path / "report").exists()
