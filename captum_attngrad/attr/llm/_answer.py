"""The answer of a language model: its tokens, their labels and their probabilities."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from captum_attngrad._captum import (
    TokenizerLike,
    default_generation_arguments,
    readable_tokens,
)
from captum_attngrad.attr.llm._prefill import cache_argument

AttrTarget = Literal["logit", "log_odds", "log_prob", "prob"]

# At such a probability the log-probability has next to no gradient left.
MAX_UNSATURATED = 0.99


class TokenScores:
    """The scores of the explained tokens of an answer, from the logits of a text.

    Args:
        answer (Tensor): the answer's token ids, ``(tokens,)``.
        places (Tensor): which of them are explained, ``(explained,)``.
        attr_target (str): what is explained of a token. ("prob" is explained as the
            log-probability, whose gradient it multiplies.)
        others (Tensor, optional): for each explained token the one that it is
            contrasted with, ``(explained,)``.

    Attributes:
        log_probs (Tensor): of the explained tokens, after a call.
    """

    def __init__(
        self,
        answer: Tensor,
        places: Tensor,
        attr_target: AttrTarget,
        others: Tensor | None = None,
    ) -> None:
        self.answer = answer
        self.places = places
        self.attr_target = attr_target
        self.others = others
        self.log_probs = torch.empty(0)

    @property
    def explained(self) -> Tensor:
        """The ids of the explained tokens."""
        return self.answer[self.places.to(self.answer.device)]

    def __call__(self, output: Tensor) -> Tensor:
        length = len(self.answer)
        if output.dim() != 3 or len(output) != 1 or output.shape[1] < length:
            raise ValueError(
                f"forward_func returned shape {tuple(output.shape)}, expected logits "
                "of a language model, (batch, positions, vocabulary), for one text and "
                f"for all of its positions (here, the last {length} at least)."
            )
        # Copies: tokens from inference_mode could not be kept for backward.
        places = self.places.clone().to(output.device)
        logits = output[0, output.shape[1] - length :][places]
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        tokens = self.answer.clone().to(output.device)[places].unsqueeze(1)
        log_probs = logits.log_softmax(-1).gather(1, tokens).squeeze(1)
        self.log_probs = log_probs.detach()
        of_tokens = logits.gather(1, tokens).squeeze(1)
        if self.others is not None:
            others = self.others.clone().to(output.device).unsqueeze(1)
            return of_tokens - logits.gather(1, others).squeeze(1)
        if self.attr_target == "logit":
            return of_tokens
        if self.attr_target == "log_odds":
            rest = logits.scatter(1, tokens, -torch.inf).logsumexp(-1)
            return of_tokens - rest
        return log_probs


def answer_ids(
    model: Any,
    tokenizer: TokenizerLike,
    prompt_ids: Tensor,
    target: str | Tensor | None,
    gen_args: dict[str, Any] | None,
    cache: Any = None,
) -> Tensor:
    """The ids of the answer's tokens, 1D: given, or what the model generates (from a
    cache that holds the beginning of the prompt, and that it may add to)."""
    if target is None:
        ids = _generated(model, prompt_ids, gen_args, cache)
    elif gen_args is not None:
        raise ValueError(
            f"gen_args={gen_args!r:.80} is for generating an answer, but target gives "
            "one. Pass only one of the two."
        )
    else:
        ids = token_ids(tokenizer, target)
    if not ids.numel():
        raise ValueError(
            f"The answer has no tokens (target={target!r:.80}), so there is nothing to "
            "explain."
        )
    return ids.to(prompt_ids.device, torch.long)


def token_ids(tokenizer: TokenizerLike, target: str | Tensor) -> Tensor:
    """The token ids of a given answer, 1D."""
    if isinstance(target, str):
        # Special tokens would come between the prompt and its continuation.
        return torch.tensor(
            tokenizer.encode(target, add_special_tokens=False), dtype=torch.long
        )
    given: Any = target
    if not isinstance(given, Tensor):
        raise TypeError(
            f"target is {type(given).__name__}, expected the answer as a str or as a "
            "1D Tensor of token ids, or None to have the model generate it."
        )
    if given.dim() != 1 or given.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"target has shape {tuple(given.shape)} and dtype {given.dtype}, "
            "expected the token ids of one answer: (tokens,), integers."
        )
    if given.numel() and int(given.min()) < 0:
        raise ValueError(f"Token ids are 0 or more, got {int(given.min())} in target.")
    return given


def checked_attr_target(attr_target: Any) -> AttrTarget:
    """
    Raises:
        ValueError: if it is unknown.
    """
    if attr_target not in get_args(AttrTarget):
        known = ", ".join(repr(each) for each in get_args(AttrTarget))
        raise ValueError(
            f"attr_target={attr_target!r} is unknown. Pass one of {known}."
        )
    found: AttrTarget = attr_target
    return found


def check_ids(model: Any, ids: Tensor) -> None:
    """Refuse an id that is out of range, before an embedding or a kernel meets it."""
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    if isinstance(size, int) and int(ids.max()) >= size:
        raise ValueError(
            f"Token id {int(ids.max())} of the answer is out of range: the model has a "
            f"vocabulary of {size}. Is the tokenizer the model's?"
        )


def _generated(
    model: Any, ids: Tensor, gen_args: dict[str, Any] | None, cache: Any
) -> Tensor:
    generate = getattr(model, "generate", None)
    if not callable(generate):
        raise ValueError(
            f"target is None, and {type(model).__name__} has no generate method to "
            "make an answer with. Pass the answer as target."
        )
    inputs = {"input_ids": ids}
    if cache is not None:
        inputs[cache_argument(model)] = cache
    forward = getattr(model, "forward", None)
    if forward and "attention_mask" in inspect.signature(forward).parameters:
        # A token of the prompt is never padding, even if it has the same id.
        inputs["attention_mask"] = torch.ones_like(ids)
    output = generate(**{**inputs, **(gen_args or default_generation_arguments())})
    sequences = getattr(output, "sequences", output)
    answer: Tensor = sequences[0][ids.shape[1] :]
    return answer


def explained_tokens(
    ids: Tensor, skip_tokens: Sequence[int | str] | None, tokenizer: TokenizerLike
) -> Tensor:
    """The positions in the answer of the tokens that are not skipped."""
    skipped = []
    for token in skip_tokens or ():
        found = (
            tokenizer.convert_tokens_to_ids(token) if isinstance(token, str) else token
        )
        if not isinstance(found, int):
            raise ValueError(
                f"skip_tokens holds {token!r:.80}, which is not a token of "
                f"{type(tokenizer).__name__}. Pass tokens of its vocabulary, or ids."
            )
        skipped.append(found)
    kept = ~torch.isin(ids, torch.tensor(skipped, dtype=ids.dtype, device=ids.device))
    if not bool(kept.any()):
        raise ValueError(
            f"skip_tokens={skip_tokens!r:.80} leaves no token of the answer "
            f"{ids.tolist()!r:.80} to explain."
        )
    return kept.nonzero().squeeze(1)


def labels(ids: Tensor, tokenizer: TokenizerLike) -> list[str]:
    """Readable tokens, as Captum shows them where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own fallback to decoding
            found = readable_tokens(ids.cpu(), tokenizer)
    except (IndexError, NotImplementedError, TypeError):
        found = []
    if len(found) == len(ids):
        return found
    # The text is not tokenized the same way again, or there are no offsets.
    return [tokenizer.decode(token.reshape(1)).strip() for token in ids.cpu()]
