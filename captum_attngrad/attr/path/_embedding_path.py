"""Paths on which embeddings go from a baseline to the input as attention grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.base import AttentionGradientAttribution
from captum_attngrad.attr._core.embedding import check_embedding, embeddings_of
from captum_attngrad.attr._core.environment import uncompiled
from captum_attngrad.attr._core.inputs import Inputs, repeated
from captum_attngrad.attr._core.reductions import PairScores
from captum_attngrad.attr._core.run import Runner
from captum_attngrad.attr._core.run_result import Run
from captum_attngrad.attr._core.target import LossFunction
from captum_attngrad.attr.path._embedding_layout import batch_dimension
from captum_attngrad.attr.path._points import AttentionPath, Point

_SCORES = PairScores(multiply=True)


class EmbeddingAttribution(AttentionGradientAttribution):
    """Base of the attributions that compare an input's embeddings with a baseline's."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        embedding: Module,
        loss_func: LossFunction | None = None,
    ) -> None:
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model, or any function
                        that runs it, as for :class:`AttentionGradient`.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The modules
                        whose attention is used, as for :class:`AttentionGradient`.
                        Their keys must be the tokens (for :class:`AttentionDeepLift`,
                        only with ``joint_steps``).
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then
            device_ids (list[int], optional): Device ID list, as for
                        :class:`AttentionGradient`. Replicas on several devices are
                        not supported.
                        Default: None
            embedding (torch.nn.Module): The module that turns tokens into vectors
                        ``(batch, tokens, features)`` (or, as in XLNet, ``(tokens,
                        batch, features)``), called once in a forward pass, such as
                        ``model.get_input_embeddings()`` of Hugging Face.
            loss_func (Callable, optional): Explain minus this loss, as for
                        :class:`AttentionGradient`.
                        Default: None
        """
        super().__init__(forward_func, layer, device_ids, loss_func=loss_func)
        self._embedding = check_embedding(embedding)


class EmbeddedPair(NamedTuple):
    """The embeddings of baselines and inputs, ``(batch, tokens, features)``."""

    baselines: Tensor
    inputs: Tensor
    batch_dim: int  # in the model's own layout, 0 or 1


def embedded_pair(
    runner: Runner,
    embedding: Module,
    baselines: tuple[tuple[Tensor, ...], Run],
    inputs: tuple[tuple[Tensor, ...], Run],
    additional_forward_args: object | None,
) -> EmbeddedPair:
    """
    Bring the embeddings of two runs into the layout ``(batch, tokens, features)``.

    Args:
        runner (Runner): runs the model.
        embedding (Module): the embedding layer.
        baselines, inputs: what the model ran on, and the run.
        additional_forward_args (Any, optional): of both runs.

    Raises:
        ValueError: if the embeddings differ in shape, or have no batch dimension.
    """
    start, end = baselines[1].embeddings, inputs[1].embeddings
    assert start is not None
    assert end is not None
    if start.shape != end.shape:
        raise ValueError(
            f"The baselines have embeddings of shape {tuple(start.shape)}, and the "
            f"inputs of {tuple(end.shape)}: they must have the same tokens and "
            "features."
        )
    module = uncompiled(embedding)

    def embedded(given: Inputs, arguments: object | None) -> Tensor:
        with embeddings_of(module) as embeddings:
            runner.output(given, arguments)
        return embeddings.given

    def doubled() -> Tensor:
        both, _, arguments = repeated(inputs[0], None, additional_forward_args, 2)
        return embedded(both, arguments)

    dim = batch_dimension(
        type(module).__name__,
        end,
        inputs[0],
        baselines[0],
        lambda changed: embedded(changed, additional_forward_args),
        doubled,
    )
    return EmbeddedPair(start.transpose(0, dim), end.transpose(0, dim), dim)


def joint_scores(
    path: AttentionPath,
    embedding: Module,
    pair: EmbeddedPair,
    points: list[Point],
    internal_batch_size: int | None = None,
    description: str = "",
    show_progress: bool = False,
) -> Tensor:
    """Integrated gradients of embeddings and attention together, ``(batch,
    tokens)``: the sum over the points of a path on which both grow."""
    change = pair.inputs - pair.baselines

    def at(chunk: list[Point]) -> tuple[Tensor]:
        vectors = torch.cat([pair.baselines + p.factor * change for p in chunk])
        run = path.runner.run(
            *path.repeated(chunk),
            graph=True,
            intervention=path.scale(chunk),
            embedding=embedding,
            replacement=vectors.transpose(0, pair.batch_dim).contiguous(),
        )
        path.check_same_calls(run.record)
        assert run.embedding_gradient is not None
        gradient = run.embedding_gradient.transpose(0, pair.batch_dim)
        scores = (gradient * change.repeat(len(chunk), 1, 1)).sum(dim=-1)
        for call in run.record:
            scores = scores + _SCORES.of_keys(call).sum(dim=1).to(scores)
        weights = torch.tensor([p.weight for p in chunk], dtype=torch.float64)
        by_point = scores.unflatten(0, (len(chunk), -1))
        return (torch.einsum("p,pbk->bk", weights.to(scores), by_point),)

    (total,) = path.integrate(
        points, at, internal_batch_size, description, show_progress
    )
    return total
