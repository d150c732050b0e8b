"""A prompt in a language model's cache of keys and values."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr.llm._prompt import Prompt

# Layers of a cache whose keys are known to be the tokens, in order: all of them, or the
# last ones. They put new tensors in the place of the old, but for the second group.
_GROWING = ("DynamicLayer", "DynamicSlidingWindowLayer")
_WRITTEN = ("StaticLayer", "QuantoQuantizedLayer", "HQQQuantizedLayer")


class NotContinuableError(Exception):
    """The prompt cannot be read from a cache; the message says why."""


class NoCacheError(NotContinuableError):
    """The model has no cache at all."""


class PrefilledPrompt:
    """
    A prompt that a model has read: its keys and values, all but those of the last
    token, are in a cache, from which any number of answers are explained.

    Made by :meth:`LLMAttentionGradient.prefill`.

    Attributes:
        prompt (Prompt): the prompt and its features.
        cache (Any): the model's cache. It is not changed.
    """

    def __init__(self, prompt: Prompt, cache: Any) -> None:
        self.prompt = prompt
        self.cache = cache
        kinds = {type(layer).__name__ for layer in cache.layers}
        self.padded = "StaticLayer" in kinds  # keys go on after the last token

    def __deepcopy__(self, memo: Any) -> PrefilledPrompt:
        # Large, and what writes to the cache gets a copy of that.
        return self

    def cache_for_one_pass(self) -> Any:
        """A cache with the same contents, which one forward pass may add to."""
        layers = self.cache.layers
        if any(type(layer).__name__ not in _GROWING for layer in layers):
            return copy.deepcopy(self.cache)
        twin = copy.copy(self.cache)
        twin.layers = [copy.copy(layer) for layer in layers]
        return twin


def prefill(model: Any, prompt: Prompt, cache: Any = None) -> PrefilledPrompt:
    """
    Read all tokens of a prompt but the last.

    Args:
        model (Module): the language model.
        prompt (Prompt): on the model's device.
        cache (Any, optional): an empty cache to fill.
            Default: what the model makes

    Raises:
        NotContinuableError: if the model keeps no cache whose keys are its tokens.
    """
    why_not = _takes_no_cache(model)
    if why_not:
        raise NoCacheError(why_not)
    if prompt.ids.shape[1] < 2:
        raise NotContinuableError("a prompt of one token leaves nothing to read first")
    name = cache_argument(model)
    given = {} if cache is None else {name: cache}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        given["logits_to_keep"] = 1
    with torch.inference_mode(False), torch.no_grad():
        ids = prompt.ids[:, :-1].clone()
        output = model(input_ids=ids, use_cache=True, **given)
    found = getattr(output, name, None)
    kinds = {type(layer).__name__ for layer in getattr(found, "layers", ())}
    unknown = sorted(kinds.difference(_GROWING, _WRITTEN))
    if not kinds:
        raise NotContinuableError(
            f"{type(model).__name__} returns no cache with layers "
            f"({type(found).__name__})"
        )
    if unknown:
        raise NotContinuableError(
            f"its cache has layers of type {', '.join(unknown)}, whose contents are "
            "not one key for each token"
        )
    return PrefilledPrompt(prompt, found)


def cache_argument(model: Any) -> str:
    """What a model calls its cache, as an argument and in its output."""
    # transformers 5.24 has renamed it.
    new = "cache" in inspect.signature(model.forward).parameters
    return "cache" if new else "past_key_values"


def _takes_no_cache(model: Any) -> str:
    if not isinstance(model, Module):
        return "forward_func is a function, which takes no cache"
    parameters = inspect.signature(model.forward).parameters
    missing = [n for n in (cache_argument(model), "use_cache") if n not in parameters]
    if missing:
        return f"{type(model).__name__}.forward takes no {' and no '.join(missing)}"
    return ""


class Continuation:
    """The model as a function of the tokens that go on from a cache, or of a whole
    text; one for each model, so that what is proved of its layouts is remembered.

    Args:
        model (Callable): the model, or a function that runs it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        known = (
            inspect.signature(model.forward).parameters
            if isinstance(model, Module)
            else {}
        )
        self._takes = set(known)

    def __call__(
        self, tokens: Tensor, prefilled: PrefilledPrompt | None, answer: int
    ) -> Any:
        """
        Args:
            tokens (Tensor): ``(1, length)``.
            prefilled (PrefilledPrompt, optional): what they follow on.
            answer (int): of how many positions, the last, logits are needed.
        """
        options: dict[str, Any] = {}
        if "logits_to_keep" in self._takes:
            options["logits_to_keep"] = answer
        if prefilled is not None:
            return self._model(
                input_ids=tokens,
                use_cache=True,
                **{cache_argument(self._model): prefilled.cache_for_one_pass()},
                **options,
            )
        if "use_cache" in self._takes:
            options["use_cache"] = False
        return self._model(tokens, **options)
