"""The output of an embedding layer, seen or replaced during a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad.capture._surroundings.threads import hooked
from captum_attngrad.capture.record import AttentionRecord


def check_embedding(embedding: Any) -> Module:
    if not isinstance(embedding, Module):
        raise TypeError(
            "embedding must be the torch.nn.Module that turns tokens into vectors, "
            f"got {type(embedding).__name__}: {embedding!r:.80}."
        )
    return embedding


class Embeddings:
    """What one embedding layer returned in one forward pass."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._given: list[Any] = []

    @property
    def given(self) -> Tensor:
        """Detached, ``(batch, tokens, features)`` or ``(tokens, batch, features)``."""
        if len(self._given) != 1:
            raise ValueError(
                f"The embedding layer {self._name} was called {len(self._given)} times "
                "in one forward pass, expected once. Pass the module that turns the "
                "tokens of this input into vectors, and that is called as a module."
            )
        (given,) = self._given
        if not isinstance(given, Tensor) or given.dim() != 3:
            found = (
                f"a tensor of shape {tuple(given.shape)}"
                if isinstance(given, Tensor)
                else type(given).__name__
            )
            raise ValueError(
                f"The embedding layer {self._name} returns {found}, expected a tensor "
                "(batch, tokens, features)."
            )
        return given

    def add(self, given: Any) -> None:
        # A copy, since the model may go on in place.
        self._given.append(given.detach().clone() if torch.is_tensor(given) else given)


@contextmanager
def embeddings_of(
    module: Module, replacement: Tensor | None = None
) -> Iterator[Embeddings]:
    """See what ``module`` returns while the block runs, and replace it if a replacement
    is given."""
    seen = Embeddings(type(module).__name__)

    def after(_: Module, args: Any, output: Any) -> Tensor | None:
        seen.add(output)
        if replacement is None:
            return None
        if torch.is_tensor(output) and output.shape != replacement.shape:
            raise RuntimeError(
                f"The embedding layer {type(module).__name__} returned "
                f"{tuple(output.shape)} in one forward pass and "
                f"{tuple(replacement.shape)} in another. What it embeds must not "
                "depend on the size of the batch."
            )
        return replacement.clone()  # a model may write to what it embeds

    with hooked(module.register_forward_hook, after):
        yield seen


def embeddings_off_path() -> RuntimeError:
    return RuntimeError(
        "The score does not depend on the embeddings: no gradient reaches them. "
        "Something on the way was detached or cannot be differentiated, or another "
        "output was chosen."
    )


def check_keys_are_tokens(record: AttentionRecord, text: Tensor) -> None:
    for call in record:
        if call.key_length != text.shape[1]:
            raise ValueError(
                f"Layer {call.layer!r} attends to {call.key_length} keys, and the "
                f"embedding has {text.shape[1]} tokens, so that their scores cannot be "
                "added. Choose the layers that attend to these tokens with layer=[...]."
            )
