"""Explain the tokens of an answer from the rows of their attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from captum_attngrad.attr._core.layer_calls import (
    check_same_keys,
    total_over_layers,
)
from captum_attngrad.attr._core.run import gradients_of_each
from captum_attngrad.attr._core.target import output_tensor
from captum_attngrad.attr.attention_gradient import AttentionGradient
from captum_attngrad.attr.llm._answer import TokenScores
from captum_attngrad.attr.llm._prefill import (
    NotContinuableError,
    PrefilledPrompt,
)
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.keys import KeyStatus
from captum_attngrad.capture.record import AttentionRecord

Query = Literal["answer", "all"] | int
# So many tokens (of copies of the text, one for each token of the answer) share a
# backward pass: enough to keep a device busy, few enough for its memory.
_TOKENS_PER_PASS = 1 << 16

OfCall = Callable[[AttentionCall, Tensor | None], Tensor]


@dataclass(frozen=True)
class Explained:
    """
    Attributes:
        scores (Tensor): of the tokens of the prompt, ``(rows, tokens)``: one row for
            each explained token, or one for all of them.
        token_scores (Tensor): what was explained, ``(explained tokens,)``.
        log_probs (Tensor): of the explained tokens, ``(explained tokens,)``.
    """

    scores: Tensor
    token_scores: Tensor
    log_probs: Tensor


@dataclass(frozen=True)
class AnswerExplainer:
    """
    Explains the tokens of an answer to a prompt.

    The answer is predicted by its *answer rows*: the last position of the prompt and
    those of all answer tokens but the last. What reaches the score at these rows goes
    through these rows only, so that their part of the gradient is exact without a
    graph through the prompt.

    Args:
        method (AttentionGradient): of a :class:`Continuation`.
        query (str or int): which rows count.
    """

    method: AttentionGradient
    query: Query

    def from_cache(
        self,
        prefilled: PrefilledPrompt,
        scores: TokenScores,
        per_token: bool,
        show_progress: bool = False,
    ) -> Explained:
        """From a prompt that the model has read.

        Raises:
            NotContinuableError: if keys cannot be matched with tokens.
        """
        ids, answer = prefilled.prompt.ids, scores.answer
        tail = torch.cat([ids[:, -1:], answer[None, :-1]], dim=1)
        return self._explain(
            tail, prefilled, len(answer), ids.shape[1], scores, per_token, show_progress
        )

    def from_text(
        self,
        prompt_ids: Tensor,
        scores: TokenScores,
        per_token: bool,
        show_progress: bool = False,
    ) -> Explained:
        """From prompt and answer as one text."""
        answer = scores.answer
        self._check_query(prompt_ids.shape[1] - 1 + int(scores.places[0]))
        text = torch.cat([prompt_ids, answer[None, :-1]], dim=1)
        length = prompt_ids.shape[1]
        return self._explain(
            text, None, len(answer), length, scores, per_token, show_progress
        )

    def _explain(
        self,
        tokens: Tensor,
        prefilled: PrefilledPrompt | None,
        answer: int,
        prompt: int,
        scores: TokenScores,
        per_token: bool,
        show_progress: bool,
    ) -> Explained:
        of_rows = self.query == "answer" or prefilled is not None
        # A row that is counted back from each predicting position differs by token.
        apart = per_token or (isinstance(self.query, int) and self.query < 0)
        pairs = self.method.pair_scores
        runner = self.method.runner()
        with runner.open(
            tokens,
            (prefilled, answer),
            lambda output: scores(output_tensor(output)),
            graph=True,
            value_gradients=pairs.uses_value_gradients and not of_rows,
            several_backward_passes=apart,
        ) as opened:
            found = opened.score
            record = runner.arranged(opened)
            layers = self.method.layers_of(record)
            if prefilled is None:
                check_same_keys(layers)
            rows = []
            cotangents = torch.eye(len(found)) if apart else torch.ones(1, len(found))
            cotangents = cotangents.to(found)
            # The prompt's positions have a graph, which is large, without a cache.
            size = (
                1
                if prefilled is None
                else max(1, _TOKENS_PER_PASS // (prompt + answer))
            )
            progress = tqdm(
                total=len(cotangents),
                desc="LLM Attention Gradient attribution",
                disable=not show_progress,
            )
            for start in range(0, len(cotangents), size):
                chosen = cotangents[start : start + size]
                for i, _ in enumerate(_differentiated(record, found, chosen), start):
                    runner.check_on_path(record)
                    position = prompt - 1 + int(scores.places[i])
                    of_call = self._of_call(answer, prompt, prefilled, position)
                    rows.append(total_over_layers(layers, of_call))
                    progress.update()
            progress.close()
        total = torch.cat(rows)
        if total.shape[1] != prompt + answer - 1:
            raise ValueError(
                f"The attention has {total.shape[1]} keys for a text of "
                f"{prompt + answer - 1} tokens, so keys cannot be matched with tokens "
                "(a prefix, a window or pooling?). Choose layers that attend to the "
                "tokens of the text with layer=[...]."
            )
        _check_causal(total, scores.places, prompt, apart)
        if not per_token:
            total = total.sum(dim=0, keepdim=True)
        return Explained(total[:, :prompt], found.detach(), scores.log_probs)

    def _check_query(self, first: int) -> None:
        """``first``: the position that predicts the first explained token."""
        if isinstance(self.query, int) and not -first - 1 <= self.query <= first:
            raise ValueError(
                f"query={self.query} is out of range: the first explained token is "
                f"predicted at position {first}, so positions go from 0 to {first}, "
                f"or from {-first - 1} to -1."
            )

    def _of_call(
        self,
        answer: int,
        prompt: int,
        prefilled: PrefilledPrompt | None,
        position: int,
    ) -> OfCall:
        """The scores of one call, ``(1, heads, tokens of prompt and answer)``."""
        pairs = self.method.pair_scores
        length = prompt + answer - 1
        if self.query == "all":
            return lambda call, _: pairs.of_keys(call, None)
        if isinstance(self.query, int):
            row = self.query if self.query >= 0 else position + 1 + self.query

            def of_row(call: AttentionCall, _: Tensor | None) -> Tensor:
                index = torch.tensor([row], device=call.device)
                return pairs.of_pairs(call, index).sum(dim=2)

            return of_row

        def of_answer(call: AttentionCall, _: Tensor | None) -> Tensor:
            rows = slice(call.query_length - answer, None)
            found = pairs.of_pairs(call, rows).sum(dim=2)
            if prefilled is None:
                return found
            return _matched(found, call, answer, length, prefilled)

        return of_answer


def _differentiated(
    record: AttentionRecord, scores: Tensor, cotangents: Tensor
) -> Iterator[None]:
    """Give every call the gradients for one cotangent after the other."""
    calls = [call for call in record if call.sources]
    sources = [source for call in calls for source in call.sources]
    found = gradients_of_each(scores, sources, cotangents)
    for i in range(len(cotangents)):
        ours = iter(None if each is None else each[i] for each in found)
        for call in calls:
            call.set_gradients([next(ours) for _ in call.sources])
        yield


def _matched(
    scores: Tensor,
    call: AttentionCall,
    answer: int,
    length: int,
    prefilled: PrefilledPrompt,
) -> Tensor:
    """The scores of a call's keys, ``(..., keys)``, as those of the text's tokens,
    ``(..., length)``."""
    keys = scores.shape[-1]
    if keys > length:
        # A cache of fixed size, which is full from the front.
        if not prefilled.padded or bool(scores[..., length:].any()):
            raise NotContinuableError(
                f"layer {call.layer!r} has {keys} keys for {length} tokens"
            )
        return scores[..., :length]
    status = call.keys_are.status
    if keys < answer or status not in (KeyStatus.TOKENS, KeyStatus.MIXED):
        raise NotContinuableError(
            f"the {keys} keys of layer {call.layer!r} do not end with the "
            f"{answer} tokens that go on from the cache"
        )
    # A sliding window keeps the last tokens.
    return torch.nn.functional.pad(scores, (length - keys, 0))


def _check_causal(scores: Tensor, places: Tensor, prompt: int, per_token: bool) -> None:
    """No token after the one that predicts counts."""
    last = [prompt - 1 + int(p) for p in places]
    limit = torch.tensor(last if per_token else [max(last)], device=scores.device)
    later = torch.arange(scores.shape[1], device=scores.device) > limit.unsqueeze(1)
    # Kernels may leave rounding errors.
    if bool((scores[later].abs() > 1e-4 * scores.abs().max()).any()):
        raise ValueError(
            "The model is not causal: tokens after the one that predicts take part in "
            "the prediction. LLMAttentionGradient is for decoder-only language models "
            "that attend to previous tokens only."
        )
