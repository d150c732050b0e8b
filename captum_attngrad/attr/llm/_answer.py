"""The answer of a language model: its tokens, their labels and their probabilities."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from captum._utils.typing import TokenizerLike
from captum.attr._core.llm_attr import (
    DEFAULT_GEN_ARGS,
    _convert_ids_to_pretty_tokens,
)
from torch import Tensor
from torch.nn import Module



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

    def __call__(self, output: Tensor) -> Tensor:
        length = len(self.answer)
        if output.dim() != 3 or output.shape[1] < length:
            raise ValueError(
                f"forward_func returned shape {tuple(output.shape)}, expected logits "
                "of a language model, (batch, positions, vocabulary), for all "
                f"positions of a text (here, the last {length} at least)."
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
) -> Tensor:
    """The ids of the answer's tokens, 1D: given, or what the model generates."""
    if target is None:
        ids = _generated(model, prompt_ids, gen_args)
    elif gen_args is not None:
        raise ValueError(
            f"gen_args={gen_args!r:.80} is for generating an answer, and target gives "
            "one. Pass one of the two."
        )
    elif isinstance(target, str):
        # Special tokens would come between the prompt and its continuation.
        ids = torch.tensor(
            tokenizer.encode(target, add_special_tokens=False), dtype=torch.long
        )
    elif isinstance(target, Tensor):
        if target.dim() != 1 or target.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"target has shape {tuple(target.shape)} and dtype {target.dtype}, "
                "expected the token ids of one answer: (tokens,), integers."
            )
        ids = target
    else:
        raise TypeError(
            f"target is {type(target).__name__}, expected the answer as a str or as a "
            "1D Tensor of token ids, or None to have the model generate it."
        )
    if not ids.numel():
        raise ValueError(
            f"The answer has no tokens (target={target!r:.80}), so there is nothing to "
            "explain."
        )
    if int(ids.min()) < 0:
        raise ValueError(f"Token ids are 0 or more, got {int(ids.min())} in target.")
    return ids.to(prompt_ids.device, torch.long)


def _generated(model: Any, ids: Tensor, gen_args: dict[str, Any] | None) -> Tensor:
    generate = getattr(model, "generate", None)
    if not callable(generate):
        raise ValueError(
            f"target is None, and {type(model).__name__} has no generate method that "
            "would make an answer. Pass the answer as target."
        )
    inputs = {"input_ids": ids}
    forward = getattr(model, "forward", None)
    if forward and "attention_mask" in inspect.signature(forward).parameters:
        # No token of the prompt is padding, though it may have the same id.
        inputs["attention_mask"] = torch.ones_like(ids)
    output = generate(**{**inputs, **(gen_args or DEFAULT_GEN_ARGS)})
    sequences = getattr(output, "sequences", output)
    answer: Tensor = sequences[0][ids.shape[1] :]
    return answer


def explained_tokens(
    ids: Tensor, skip_tokens: Sequence[int | str] | None, tokenizer: TokenizerLike
) -> Tensor:
    """The places in the answer of the tokens that are not to be skipped."""
    skipped = []
    for token in skip_tokens or ():
        found = (
            tokenizer.convert_tokens_to_ids(token) if isinstance(token, str) else token
        )
        if not isinstance(found, int):
            raise ValueError(
                f"skip_tokens holds {token!r:.80}, which is no token of "
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
            warnings.simplefilter("ignore")  # that it does what is done below
            found = _convert_ids_to_pretty_tokens(ids.cpu(), tokenizer)
    except (IndexError, NotImplementedError, TypeError):
        found = []
    if len(found) == len(ids):
        return found
    # Text that is not cut into the same tokens once more, or no offsets.
    return [tokenizer.decode(token.reshape(1)).strip() for token in ids.cpu()]
