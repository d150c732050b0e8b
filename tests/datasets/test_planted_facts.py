"""Invented facts: where the answer stands, and where it does not."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from captum_attngrad.datasets.planted_facts import (
    PlantedPrompt,
    Task,
    planted_facts,
)

TASKS = get_args(Task)


def has(source: str, value: str) -> bool:
    return value in source.replace(".", " ").split()


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_stands_in_the_planted_sources_alone(task: Task) -> None:
    for prompt in planted_facts(50, 8, task=task, seed=1):
        assert len(prompt.sources) == 8
        assert any(has(prompt.sources[i], prompt.answer) for i in prompt.planted)
        allowed = {*prompt.planted, *prompt.distractors}
        topic = prompt.sources[prompt.planted[0]].split(" ")[1]
        for i, source in enumerate(prompt.sources):
            if i not in allowed and topic in source:
                assert not has(source, prompt.answer)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_prompts(task: Task) -> None:
    made = planted_facts(5, 6, task=task, seed=3)
    assert made == planted_facts(5, 6, task=task, seed=3)
    # More prompts begin with the same ones.
    assert planted_facts(8, 6, task=task, seed=3)[:5] == made
    assert made != planted_facts(5, 6, task=task, seed=4)


def test_all_sources_differ() -> None:
    for prompt in planted_facts(20, 60):
        assert len(set(prompt.sources)) == 60


@pytest.mark.parametrize(("depth", "place"), [(0.0, 0), (0.5, 3), (1.0, 6)])
def test_depth(depth: float, place: int) -> None:
    for prompt in planted_facts(10, 7, task="needle", depth=depth):
        assert prompt.planted == (place,)


def test_two_hops() -> None:
    for prompt in planted_facts(20, 6, task="two_hop"):
        first, second = (prompt.sources[i] for i in prompt.planted)
        lives, fact = (first, second) if "lives in" in first else (second, first)
        person, place = lives.rstrip(".").split(" lives in ")
        assert place in fact
        assert person in prompt.question
        assert place not in prompt.question


@pytest.mark.parametrize("task", ["distractor", "injection"])
def test_distractors(task: Any) -> None:
    for prompt in planted_facts(20, 6, task=task):
        assert prompt.wrong_answer not in ("", prompt.answer)
        assert any(
            has(prompt.sources[i], prompt.wrong_answer) for i in prompt.distractors
        )
        assert not set(prompt.planted) & set(prompt.distractors)


def test_filler_makes_prompts_longer() -> None:
    short = planted_facts(1, 4, seed=2)[0]
    long = planted_facts(1, 4, seed=2, num_filler_sentences=5)[0]
    assert isinstance(long, PlantedPrompt)
    for one, other in zip(short.sources, long.sources, strict=True):
        assert other.startswith(one)
        assert other.count(".") == one.count(".") + 5


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"task": "poem"}, "task='poem' is unknown. Pass one of 'fact'"),
        ({"num_sources": 1}, "num_sources=1, expected 2 to 60"),
        ({"num_sources": 2, "task": "distractor"}, "expected 3 to 60"),
        ({"num_sources": 61}, "num_sources=61"),
        ({"depth": 1.5}, "depth=1.5, expected a number from 0 to 1"),
        ({"num_filler_sentences": -1}, "num_filler_sentences=-1"),
        ({"num_prompts": -1}, "num_prompts=-1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        planted_facts(**{"num_prompts": 1, **arguments})
