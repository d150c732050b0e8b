"""``python -m benchmarks.search minilm --split validation`` writes a table.

What was chosen was chosen on the validation split. The test split is for one report.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.search.measures import Array, Judge
from benchmarks.search.methods import (
    FULL,
    Levels,
    Method,
    attention_deep_lift,
    attention_gradient,
    from_masked_attention,
    gauss_legendre,
    integrated_gradients,
    joint_path,
    last_attention,
    random_scores,
    scaled_attention,
    shapley_value_sampling,
    shuffled_levels,
    slopes,
    slopes_and_attention_from_masked,
    slopes_of_three_pairs,
    with_and_without,
)
from benchmarks.search.passes import log_odds
from benchmarks.search.slopes import halves
from benchmarks.search.slopes import with_and_without as with_and_without_slopes
from benchmarks.search.subjects import SUBJECTS, Subject, Texts, load_texts
from benchmarks.search.table import table, versions, write

BASE = "Integrated Gradients, 50 points"
SHAPLEY = "ShapleyValueSampling, 25 samples"
# The LSTM mixes words before its attention, so there the scores come from the word
# vectors alone, and points inside the path take the place of its ends.
LEVELS = {
    "minilm": Levels(),
    "lstm": Levels(
        first=0.6, high=0.9, low=0.3, alphas=(1.0, 1.0, 1.0), attention=False
    ),
}


def methods(subject: str) -> list[Method]:
    two, three = gauss_legendre(2), gauss_legendre(3)
    shuffled = shuffled_levels((0.3, 0.6, 0.9), log_odds)
    found = [
        Method("random", "0", random_scores),
        Method("raw attention, last layer, first row", "1 forward", last_attention),
        Method("attention gradient", "1", attention_gradient),
        Method("attention × gradient", "1", scaled_attention(FULL)),
        Method("integrated attention gradient, 3", "3", scaled_attention(three)),
        Method("Integrated Gradients, 3 points", "3", integrated_gradients(three)),
        Method(BASE, "50", integrated_gradients(gauss_legendre(50))),
        Method(
            "attention from masked to its own, 3, log-odds",
            "3 + 1 forward",
            from_masked_attention(three, log_odds),
        ),
        Method(
            "joint integrated gradients, 3, log-odds",
            "3",
            joint_path(three, log_odds, masked_too=False),
        ),
        Method(
            "joint path, attention from masked, 3, log-odds",
            "3 + 1 forward",
            joint_path(three, log_odds, masked_too=True),
        ),
        Method(
            "Integrated Gradients, 3 points, log-odds",
            "3",
            integrated_gradients(three, log_odds),
        ),
        Method("shuffled levels, 3, log-odds", "3", shuffled),
        Method(
            "with and without the top fifth, 3, log-odds",
            "3 + 1 forward" if LEVELS[subject].attention else "3",
            with_and_without(LEVELS[subject]),
        ),
        Method("slopes, attention held, log-odds", "1", attention_deep_lift(0)),
        Method(
            "AttentionDeepLift, joint_steps=2, log-odds", "3", attention_deep_lift(2)
        ),
        Method(SHAPLEY, "25 forwards a token", shapley_value_sampling(25)),
    ]
    if subject == "minilm":  # the LSTM has none of the operations
        found += [
            Method("slopes, attention to its key", "1", slopes("key")),
            Method("slopes, through queries and keys", "1", slopes("through")),
            Method(
                "slopes, with and without the top fifth",
                "3",
                slopes_of_three_pairs(with_and_without_slopes),
            ),
            Method("slopes, random halves", "3", slopes_of_three_pairs(halves)),
            Method(
                "slopes, and attention from masked to its own, 2",
                "3 + 1 forward",
                slopes_and_attention_from_masked(two),
            ),
        ]
    return found


def scores_of(
    method: Method, subject: Subject, texts: Texts, keep: Path | None
) -> tuple[list[Tensor], float]:
    """Scores of each batch, and the seconds they took when they were computed."""
    file = None
    if keep is not None:
        file = keep / f"{''.join(c if c.isalnum() else '_' for c in method.name)}.pt"
        if file.exists():
            kept: tuple[list[Tensor], float] = torch.load(file)
            return kept
    start = time.perf_counter()
    scores = [method.run(subject, batch).detach() for batch in texts.batches]
    found = scores, time.perf_counter() - start
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, file)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=__doc__
    )
    parser.add_argument("model", choices=sorted(SUBJECTS))
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument(
        "--count", type=int, default=200, help="reviews, from the first"
    )
    parser.add_argument("--keep", type=Path, help="folder that keeps the scores")
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="some of them (default: all)"
    )
    parser.add_argument("--print-only", action="store_true", help="write no README.md")
    options = parser.parse_args()
    chosen = methods(options.model)
    if options.methods is not None:
        unknown = {*options.methods, BASE} - {method.name for method in chosen}
        if unknown:
            parser.error(f"no such method: {', '.join(sorted(unknown))}")
        chosen = [m for m in chosen if m.name in (*options.methods, BASE)]
    subject = SUBJECTS[options.model]()
    texts = load_texts(subject, options.split, options.count)
    keep = options.keep
    if keep is not None:
        keep = keep / f"{options.model}_{options.split}_{texts.count}"
    judge = Judge(subject, texts)
    values: dict[str, dict[str, Array]] = {}
    costs: dict[str, tuple[str, float]] = {}
    for method in tqdm(chosen, desc="Methods"):
        scores, seconds = scores_of(method, subject, texts, keep)
        values[method.name] = judge.judge(scores)
        costs[method.name] = (method.passes, seconds / texts.count)
    values["leave-one-out"] = judge.judge(judge.effects)
    costs["leave-one-out"] = ("1 forward a token", float("nan"))
    head = (
        f"{texts.count} reviews of the {options.split} split, {subject.about}; "
        f"{versions()}; batches of 25."
    )
    parts = [head, table(values, costs, BASE)]
    if SHAPLEY in values:
        shown = {name: of for name, of in values.items() if name != BASE}
        parts.append(table(shown, costs, SHAPLEY))
    text = "\n\n".join(parts)
    print(text)
    if not options.print_only:
        write(f"{options.model}, {options.split}", text)


if __name__ == "__main__":
    main()
