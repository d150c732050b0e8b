"""One explanation per output: time against a plain loop over the outputs.

``python -m benchmarks.sequence`` explains every output of random sequence-to-sequence
models in three ways, which take turns in one process and must agree on the numbers:

* ``SequenceAttentionGradient``,
* one forward pass, and one backward pass per output to all attention weights,
* ``AttentionGradient`` once per output: a forward and a backward pass each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_attngrad import (
    AttentionGradient,
    SequenceAttentionGradient,
    capture_attention,
)

Way = Callable[[], Tensor]


class RecurrentSeq2Seq(nn.Module):
    """GRU encoder, GRU decoder with additive attention that is fed into each step."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.source = nn.Embedding(vocabulary, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.token = nn.Embedding(vocabulary, width)
        self.keys, self.query = nn.Linear(width, width), nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)
        self.cell = nn.GRUCell(2 * width, width)
        self.out = nn.Linear(width, vocabulary)

    def forward(self, source: Tensor, fed: Tensor) -> Tensor:
        states, last = self.encoder(self.source(source))
        keys, state, outputs = self.keys(states), last[0], []
        for token in self.token(fed).unbind(1):
            scores = self.score((keys + self.query(state).unsqueeze(1)).tanh())
            weights = scores.squeeze(-1).softmax(-1)
            context = (weights.unsqueeze(1) @ states).squeeze(1)
            state = self.cell(torch.cat([token, context], -1), state)
            outputs.append(state)
        return self.out(torch.stack(outputs, 1))


def recurrent(width: int) -> nn.Module:
    return RecurrentSeq2Seq(width, VOCABULARY)


def t5(attention: str) -> Callable[[int], nn.Module]:
    def build(width: int) -> nn.Module:
        from transformers import T5Config, T5ForConditionalGeneration

        config = T5Config(
            vocab_size=VOCABULARY,
            d_model=width,
            d_kv=width // 4,
            d_ff=2 * width,
            num_layers=3,
            num_heads=4,
            decoder_start_token_id=0,
        )
        config._attn_implementation = attention
        model = T5ForConditionalGeneration(config)

        class Logits(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, source: Tensor, fed: Tensor) -> Tensor:
                return self.model(input_ids=source, decoder_input_ids=fed).logits

        return Logits()

    return build


VOCABULARY = 200
MODELS: dict[str, Callable[[int], nn.Module]] = {
    "GRU, additive attention": recurrent,
    "T5, fused attention": t5("sdpa"),
    "T5, attention written out": t5("eager"),
}


def explained_layers(model: nn.Module) -> list[nn.Module]:
    named = [m for n, m in model.named_modules() if n.endswith("EncDecAttention")]
    return named or [model]


def ways(
    model: nn.Module, source: Tensor, fed: Tensor, targets: Tensor
) -> dict[str, Way]:
    layers = explained_layers(model)
    outputs = targets.shape[1]
    sequence = SequenceAttentionGradient(model, layers)
    single = AttentionGradient(model, layers)

    def one_backward_each() -> Tensor:
        with capture_attention(model, layers) as record:
            output = model(source, fed)
        scores = output.gather(2, targets.unsqueeze(2)).squeeze(2)
        calls = list(record)
        sources = [call.sources[0] for call in calls]
        rows = []
        for t in range(outputs):
            found = torch.autograd.grad(
                scores[:, t].sum(), sources, retain_graph=True, allow_unused=True
            )
            total = torch.zeros(len(source), source.shape[1])
            for place, (call, gradient) in enumerate(zip(calls, found, strict=True)):
                stepwise = call.query_length == 1
                if gradient is None or (stepwise and place != t):
                    continue
                call.set_gradients([gradient])
                row = slice(0, 1) if stepwise else slice(t, t + 1)
                total = total + call.gradient(row).sum(1).squeeze(1)
            rows.append(total)
        return torch.stack(rows, 1)

    def attribute_each() -> Tensor:
        rows = []
        for t in range(outputs):
            target = [(t, int(k)) for k in targets[:, t]]
            rows.append(single.attribute((source, fed), target, query=t)[0])
        return torch.stack(rows, 1)

    return {
        "sequence": lambda: sequence.attribute((source, fed), targets)[0],
        "backward": one_backward_each,
        "attribute": attribute_each,
    }


def measure(name: str, outputs: int, options: Any) -> dict[str, float]:
    """Median seconds of each way; they take turns."""
    torch.manual_seed(0)
    model = MODELS[name](options.width).eval()
    source = torch.randint(VOCABULARY, (options.examples, options.source))
    fed, targets = torch.randint(VOCABULARY, (2, options.examples, outputs))
    ways_ = ways(model, source, fed, targets)
    found = {way: run() for way, run in ways_.items()}  # and warm up
    for way, numbers in found.items():
        torch.testing.assert_close(numbers, found["sequence"], rtol=1e-3, atol=1e-5)
        assert way
    times: dict[str, list[float]] = {way: [] for way in ways_}
    for _ in range(options.turns):
        for way, run in ways_.items():
            start = time.perf_counter()
            run()
            times[way].append(time.perf_counter() - start)
    return {way: statistics.median(seconds) for way, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sequence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--outputs", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--source", type=int, default=24)
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    print(
        f"{options.examples} examples of {options.source} source tokens, width "
        f"{options.width}; torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    print("| model | outputs | seconds | loop of backward passes | loop of attribute |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in MODELS:
        for outputs in options.outputs:
            times = measure(name, outputs, options)
            mine = times["sequence"]
            print(
                f"| {name} | {outputs} | {mine:.3f} | {times['backward'] / mine:.1f} x "
                f"| {times['attribute'] / mine:.1f} x |",
                flush=True,
            )


if __name__ == "__main__":
    main()
