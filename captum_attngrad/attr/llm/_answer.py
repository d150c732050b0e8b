"""The answer of a language model: its tokens, their labels and their probabilities."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad._captum import (
    TokenizerLike,
    default_generation_arguments,
    readable_tokens,
)
from captum_attngrad.capture._surroundings.threads import hooked


class TokenLoss:
    """Minus the score of each answer token, as a ``loss_func``.

    It is called with the logits of copies of one text, each of which predicts a
    different token of the answer.

    Args:
        back (Tensor): for each copy, the position that predicts its token, counted
            back from the last, ``(copies,)``.
        logits (bool): explain the logit; otherwise the log-probability.
    """

    def __init__(self, back: Tensor, logits: bool) -> None:
        self._back = back
        self._logits = logits
        self.log_probs = torch.empty(0)  # of the tokens of the last call

    @property
    def positions(self) -> int:
        """The number of positions at the end of the text whose logits are needed."""
        return int(self._back.max()) + 1

    def __call__(self, output: Tensor, tokens: Tensor) -> Tensor:
        if output.dim() != 3 or output.shape[1] < self.positions:
            raise ValueError(
                f"forward_func returned shape {tuple(output.shape)}, expected logits "
                "of a language model, (batch, positions, vocabulary), for all "
                f"positions of a text (here, the last {self.positions} at least)."
            )
        # Cloned, since autograd cannot save tensors that inference_mode made.
        back, index = (t.clone().to(output.device) for t in (self._back, tokens))
        copies = torch.arange(len(index), device=output.device)
        predicting = output[copies, output.shape[1] - 1 - back]
        if predicting.dtype in (torch.float16, torch.bfloat16):
            predicting = predicting.float()
        index = index.unsqueeze(1)
        log_probs = predicting.log_softmax(-1).gather(1, index).squeeze(1)
        self.log_probs = log_probs.detach()
        if self._logits:
            return -predicting.gather(1, index).squeeze(1)
        return -log_probs


@contextlib.contextmanager
def last_logits_only(model: Any, count: int) -> Iterator[None]:
    """Ask a model that has these options to compute the logits (each a vector as long
    as the vocabulary) of the last positions only, and to keep no cache."""
    wanted = {"logits_to_keep": count, "use_cache": False}
    if isinstance(model, Module):
        known = inspect.signature(model.forward).parameters
        wanted = {name: value for name, value in wanted.items() if name in known}
    if not isinstance(model, Module) or not wanted:
        yield
        return

    def ask(_: Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**wanted, **kwargs}

    with hooked(model.register_forward_pre_hook, ask, with_kwargs=True):
        yield


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
            f"gen_args={gen_args!r:.80} is for generating an answer, but target gives "
            "one. Pass only one of the two."
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
            f"target is None, and {type(model).__name__} has no generate method to "
            "make an answer with. Pass the answer as target."
        )
    inputs = {"input_ids": ids}
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
