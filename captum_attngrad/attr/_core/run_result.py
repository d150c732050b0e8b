"""What a run of a model gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from captum_attngrad.attr._core.embedding import Embeddings
from captum_attngrad.capture.record import AttentionRecord
from captum_attngrad.capture.recorder import Recorder


class Run(NamedTuple):
    """What one forward pass, and perhaps one backward pass, gave.

    Attributes:
        record (AttentionRecord): the attention calls, in a known layout. After a run
            with a graph they have gradients, or are known to have no influence.
        score (Tensor): ``(batch,)``.
        embeddings (Tensor, optional): what the embedding layer returned, detached, in
            the model's own layout.
        embedding_gradient (Tensor, optional): of the score, by the embeddings that
            were put in.
    """

    record: AttentionRecord
    score: Tensor
    embeddings: Tensor | None = None
    embedding_gradient: Tensor | None = None


class Arguments(NamedTuple):
    """What forward_func is called with."""

    inputs: tuple[Tensor, ...]
    others: tuple[Any, ...]

    @property
    def all(self) -> tuple[Any, ...]:
        return *self.inputs, *self.others


@dataclass
class OpenRun:
    """A forward pass whose graph is still there.

    Attributes:
        score (Tensor): what ``score_of`` returned.
        recorder (Recorder): what saw the attention calls.
        arguments (Arguments): what forward_func was called with.
        embeddings (Embeddings, optional): what the embedding layer returned.
        vectors (Tensor, optional): the leaf that was put in the place of it.
    """

    score: Tensor
    recorder: Recorder
    arguments: Arguments
    embeddings: Embeddings | None = None
    vectors: Tensor | None = None
