r"""The projections of queries, keys, values and outputs in a model's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from torch import Tensor, nn

from captum_attngrad.metrics._parameters import NotApplicableError


@dataclass(frozen=True)
class AttentionProjections:
    r"""
    One attention layer's projections, as views: writing into them changes the model.

    Head ``h`` has the rows ``h * d`` to ``(h + 1) * d`` of query, key and value and the
    same columns of the output projection.
    """

    name: str
    n_heads: int
    query: tuple[Tensor, Tensor | None]  # weight and bias
    key: tuple[Tensor, Tensor | None]
    value: tuple[Tensor, Tensor | None]
    output: tuple[Tensor, Tensor | None]

    def head_rows(self, head: int) -> slice:
        """Rows of a head in the value projection."""
        size = len(self.value[0]) // self.n_heads
        return slice(head * size, (head + 1) * size)


def _of(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    assert isinstance(linear, nn.Linear)
    bias = linear._parameters["bias"]
    return linear.weight.detach(), None if bias is None else bias.detach()


def _of_multihead(name: str, layer: nn.MultiheadAttention) -> AttentionProjections:
    if layer.bias_k is not None or layer.add_zero_attn:
        raise NotApplicableError(
            f"{name or 'The layer'} is a MultiheadAttention with add_bias_kv or "
            "add_zero_attn, whose extra key the changes cannot take into account."
        )
    size = layer.embed_dim
    joint = layer._parameters["in_proj_weight"]
    if joint is not None:
        query, key, value = joint.detach().split(size)
    else:
        query, key, value = (
            weight.detach()
            for weight in (
                layer.q_proj_weight,
                layer.k_proj_weight,
                layer.v_proj_weight,
            )
        )
    biases: list[Tensor | None] = [None, None, None]
    joint_bias = layer._parameters["in_proj_bias"]
    if joint_bias is not None:
        biases = list(joint_bias.detach().split(size))
    return AttentionProjections(
        name=name,
        n_heads=layer.num_heads,
        query=(query, biases[0]),
        key=(key, biases[1]),
        value=(value, biases[2]),
        output=_of(layer.out_proj),
    )


# Names of query, key, value and output projection, and of the number of heads.
_LAYOUTS = (
    # BERT and similar models
    (
        ("self.query", "self.key", "self.value", "output.dense"),
        "self.num_attention_heads",
    ),
    # DistilBERT
    (("q_lin", "k_lin", "v_lin", "out_lin"), "n_heads"),
)


def _found(name: str, layer: nn.Module) -> AttentionProjections | None:
    for names, heads in _LAYOUTS:
        try:
            linears = [attrgetter(linear)(layer) for linear in names]
            n_heads = int(attrgetter(heads)(layer))
        except AttributeError:
            continue
        if all(isinstance(linear, nn.Linear) for linear in linears):
            query, key, value, output = map(_of, linears)
            return AttentionProjections(name, n_heads, query, key, value, output)
    return None


def attention_projections(model: nn.Module) -> Iterator[AttentionProjections]:
    """The projections of every attention layer with a known layout."""
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            yield _of_multihead(name, module)
        else:
            found = _found(name, module)
            if found is not None:
                yield found
