r"""A constant shift of the input that the next layer absorbs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_attngrad.metrics._parameters import NotApplicableError, copied, normal
from captum_attngrad.metrics.resilience.attention_projections import (
    attention_projections,
)
from captum_attngrad.metrics.resilience.recurrent import Run, recurrent_attentions


def shift_inputs(
    model: nn.Module,
    seed: int = 0,
    scale: float = 1.0,
    embedding: nn.Embedding | None = None,
    next_layer: nn.Module | None = None,
    *,
    run: Run | None = None,
) -> nn.Module:
    r"""
    Adds a constant vector :math:`c` to all word embeddings and has the next layer
    absorb it (Kindermans et al. 2019, https://arxiv.org/abs/1711.00867).

    A linear layer, an LSTM, a GRU or an attention that follows the embedding has
    :math:`W c` subtracted from its bias. A layer normalization (as in BERT-like models,
    after position embeddings have been added) subtracts the mean itself: there
    :math:`c` has the same number in all dimensions.

    Args:
        model (nn.Module): The model.
        seed (int): Seed of the constant.
            Default: 0
        scale (float): Its size, relative to the standard deviation of the embeddings.
            Default: 1.0
        embedding (nn.Embedding, optional): The submodule that embeds the words. None
            finds it in BERT-like models and in recurrent models with attention.
            Default: None
        next_layer (nn.Module, optional): The only submodule that its output goes to.
            Given together with ``embedding``.
            Default: None
        run (Callable, optional): Runs the model on some input and returns its output,
            to find the layers of recurrent models that are not registered.
            Default: None

    Returns:
        *nn.Module*: A changed copy.

    Raises:
        NotApplicableError: If no embedding is known whose next layer can absorb a
            constant.
        ValueError: If only one of ``embedding`` and ``next_layer`` is given, or one is
            not part of the model.
    """
    names = _embedding_and_next(model, embedding, next_layer, run)
    changed = copied(model)
    generator = torch.Generator().manual_seed(seed)
    table = changed.get_parameter(f"{names[0]}.weight").detach()
    layer = changed.get_submodule(names[1])
    size = scale * float(table.std())
    if isinstance(layer, nn.LayerNorm):
        constant = torch.full_like(table[0], size)
    else:
        constant = normal(table[0], generator, size)
    _absorb(layer, constant)
    table += constant
    return changed


def _absorb(layer: nn.Module, constant: Tensor) -> None:
    pairs: list[tuple[Tensor, Tensor | None]] = []
    if isinstance(layer, nn.LayerNorm):
        return
    if isinstance(layer, nn.Linear):
        pairs = [(layer.weight, layer.bias)]
    elif isinstance(layer, nn.RNNBase):
        ends = ("_l0", "_l0_reverse")[: 1 + layer.bidirectional]
        pairs = [
            (
                layer.get_parameter(f"weight_ih{end}"),
                getattr(layer, f"bias_ih{end}", None),
            )
            for end in ends
        ]
    elif isinstance(layer, nn.MultiheadAttention):
        found = next(attention_projections(layer))
        pairs = [found.query, found.key, found.value]
    if not pairs or any(bias is None for _, bias in pairs):
        raise NotApplicableError(
            f"input_shift: a {type(layer).__name__} follows the embedding; expected a "
            "Linear, LSTM, GRU, RNN or MultiheadAttention with a bias, or a LayerNorm."
        )
    for weight, bias in pairs:
        assert bias is not None
        moved = weight.detach().double() @ constant.double()
        bias.detach().sub_(moved.to(bias))


def _embedding_and_next(
    model: nn.Module,
    embedding: nn.Module | None,
    next_layer: nn.Module | None,
    run: Run | None,
) -> tuple[str, str]:
    if (embedding is None) != (next_layer is None):
        raise ValueError("Give both embedding and next_layer, or neither.")
    if embedding is not None and next_layer is not None:
        names = {id(module): name for name, module in model.named_modules()}
        for module in (embedding, next_layer):
            if id(module) not in names:
                raise ValueError(
                    f"{type(module).__name__} is not part of {type(model).__name__}; "
                    "pass submodules of the model."
                )
        return names[id(embedding)], names[id(next_layer)]
    for layout in recurrent_attentions(model, run):
        if layout.embedding is not None:
            return layout.embedding, layout.recurrent
    for name, module in model.named_modules():
        words = getattr(module, "word_embeddings", None)
        norm = getattr(module, "LayerNorm", None)
        if isinstance(words, nn.Embedding) and isinstance(norm, nn.LayerNorm):
            prefix = f"{name}." if name else ""
            return f"{prefix}word_embeddings", f"{prefix}LayerNorm"
    raise NotApplicableError(
        f"input_shift: it is not known which layer follows the embedding of "
        f"{type(model).__name__}; pass embedding and next_layer."
    )
