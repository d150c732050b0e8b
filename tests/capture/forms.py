"""Ways of writing attention that are followed, and ways that are not.

Each gets the model, queries, keys and values, ``(batch, heads, length, channels)``, and
returns the context in any shape with the batch first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.capture.layouts import Attend, Attention

EXACT: dict[str, Attend] = {}
LOST: dict[str, Attend] = {}


def exact(form: Attend) -> Attend:
    """Followed: the scores are those of autograd."""
    EXACT[form.__name__] = form
    return form


def lost(form: Attend) -> Attend:
    """Not followed, and said to be."""
    LOST[form.__name__] = form
    return form


def scores(query: Tensor, key: Tensor) -> Tensor:
    return query @ key.mT


def same(weights: Tensor) -> Tensor:
    return weights


def numbers(*shape: int) -> Tensor:
    """Always the same, in float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def lengths(m: Attention, v: Tensor) -> tuple[int, int, int, int]:
    return len(v), m.sizes.heads, m.sizes.queries, m.sizes.keys


@exact
def fold_examples_first(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)
    w = m.softmax(
        torch.bmm(q.reshape(b * h, Q, -1), k.reshape(b * h, K, -1).mT),
        -1,
        lambda t: t.reshape(b, h, Q, K),
    )
    return torch.bmm(w, v.reshape(b * h, K, -1)).view(b, h, Q, -1)


@exact
def fold_heads_first(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)

    def f(x):
        return torch.cat([c.squeeze(1) for c in x.split(1, dim=1)], dim=0)

    w = m.softmax(
        f(q) @ f(k).mT / 1.4, 2, lambda t: t.reshape(h, b, Q, K).transpose(0, 1)
    )
    o = w @ f(v)
    return torch.cat(o.split(b, dim=0), dim=2)


@exact
def flat_rows(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)
    w = m.softmax(scores(q, k).reshape(-1, K), 1, lambda t: t.reshape(b, h, Q, K))
    return w.view(b, h, Q, K) @ v


@exact
def examples_with_queries(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)
    w = m.softmax(
        scores(q, k).transpose(1, 2).reshape(b * Q, h, K),
        -1,
        lambda t: t.reshape(b, Q, h, K).transpose(1, 2),
    )
    return torch.einsum("bqhk,bhkd->bqhd", w.reshape(b, Q, h, K), v)


@exact
def keys_first_flat(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)
    w = m.softmax(
        scores(q, k).permute(3, 2, 1, 0).reshape(K, -1),
        0,
        lambda t: t.reshape(K, Q, h, b).permute(3, 2, 1, 0),
    )
    return torch.einsum("kqhb,bhkd->bqhd", w.view(K, Q, h, b), v)


@exact
def multi_query(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = k[:, :1], v[:, :1]
    w = m.softmax(scores(q, k), -1, same)
    return w @ v


@exact
def einsum_implicit(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)

    rows = [torch.einsum("cx,xd", a, b) for a, b in zip(w[:, 0], v[:, 0], strict=True)]
    more = [
        torch.einsum("cx,xd", a, b) for a, b in zip(w[:, -1], v[:, -1], strict=True)
    ]
    return torch.stack([torch.stack(rows), torch.stack(more)], 2)


@exact
def einsum_list(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.einsum("bhqk,bhkd->bqhd", [w, v])


@exact
def einsum_numbers(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.einsum(w, [0, 1, 2, 3], v, [0, 1, 3, 4], [0, 2, 1, 4])


@exact
def einsum_numbers_implicit(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    parts = [
        torch.einsum(w[b, h], [2, 9], v[b, h], [9, 10])
        for b in range(len(w))
        for h in range(w.shape[1])
    ]
    return torch.stack(parts).unflatten(0, w.shape[:2]).transpose(1, 2)


@exact
def einsum_numbers_ellipsis(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.einsum(w, [..., 2, 9], v, [..., 9, 10])


@exact
def einsum_with_gate(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    g = torch.sigmoid(q.mean(-1))
    return torch.einsum("bhqk,bhkd,bhq->bqhd", w, v, g)


@exact
def einsum_with_projection(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    proj = m.out_w if hasattr(m, "out_w") else torch.eye(2, dtype=v.dtype)
    return torch.einsum("bhqk,bhkd,de->bqhe", w, v, proj)


@exact
def einsum_ellipsis(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.einsum("...qk,...kd->...qd", w, v)


@exact
def einsum_ellipsis_implicit(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.einsum("...ax,...xd", w, v)


@exact
def values_first(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    for _i in range(v.shape[0]):
        pass
    w = m.softmax(scores(q, k), -1, same)
    return (v.mT @ w.mT).mT


@exact
def softmax_over_a_middle_dimension(
    m: Attention, q: Tensor, k: Tensor, v: Tensor
) -> Tensor:
    w = m.softmax(k @ q.mT, 2, lambda t: t.mT)
    return v.mT @ w


@exact
def softmax_with_dtype(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = F.softmax(scores(q, k), dim=3, dtype=torch.float64)

    m.retained.append((w, same))
    return w.to(v.dtype) @ v


@exact
def softmax_over_minus_three(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k).transpose(1, 3), -3, lambda t: t.transpose(1, 3))
    return (w.unsqueeze(-1) * v.transpose(1, 2).unsqueeze(2)).sum(-4)


@exact
def sink(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = scores(q, k)
    s = torch.cat([s, torch.zeros_like(s[..., :1])], -1)
    w = m.softmax(s, -1, lambda t: t[..., :-1])
    return w[..., :-1] @ v


@exact
def sink_first(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = scores(q, k)
    s = torch.cat([torch.zeros_like(s[..., :1]), s], -1)
    w = m.softmax(s, -1, lambda t: t[..., 1:])
    return torch.einsum("bhqk,bhkd->bqhd", w[:, :, :, 1:], v)


@exact
def masked_and_renormalized(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    mask = torch.ones_like(w).tril()

    w = w * mask
    w = w / w.sum(-1, keepdim=True)
    return w @ v


@exact
def times_mask_of_pairs(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return (w * numbers(*w.shape[-2:])) @ v


@exact
def times_mask_of_keys(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return (w * numbers(w.shape[0], 1, 1, w.shape[3])) @ v


@exact
def product_over_two(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same).transpose(2, 3)
    return (w.unsqueeze(-1) * v.unsqueeze(3)).sum(2)


@exact
def bmm_reshape(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)
    w = m.softmax(scores(q, k), -1, same)
    out = w.reshape(b * h, Q, K).bmm(v.reshape(b * h, K, -1))
    return out.unflatten(0, (b, h)).transpose(1, 2)


@exact
def permute_reshape_bmm(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)
    w = m.softmax(scores(q, k).permute(2, 0, 1, 3), -1, lambda t: t.permute(1, 2, 0, 3))
    r = (
        w.permute(2, 1, 0, 3)
        .reshape(h * b, Q, K)
        .bmm(v.transpose(0, 1).reshape(h * b, K, -1))
    )
    return r.view(h, b, Q, -1).transpose(0, 1)


@exact
def relative(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    rel = numbers(w.shape[2], w.shape[3], v.shape[-1])
    return w @ v + torch.einsum("bhqk,qkd->bhqd", w, rel)


@exact
def relative_first(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    rel = numbers(w.shape[2], w.shape[3], v.shape[-1])
    r = torch.einsum("bhqk,qkd->bhqd", w, rel)
    return r + w @ v


@exact
def relative_shaw(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)
    w = m.softmax(scores(q, k), -1, same)
    rel = numbers(Q, K, v.shape[-1])
    r = (
        (w.permute(2, 0, 1, 3).reshape(Q, b * h, K) @ rel)
        .view(Q, b, h, -1)
        .permute(1, 2, 0, 3)
    )
    return w @ v + r


@exact
def learned_memory(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w @ (v * 0 + numbers(*v.shape[1:]))


@exact
def heads_loop(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack([w[:, i] @ v[:, i] for i in range(m.sizes.heads)], 1)


@exact
def heads_loop_dimless(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(
        torch.einsum("bhqd,bhkd->hbqk", q, k), -1, lambda t: t.transpose(0, 1)
    )
    return torch.stack([w[i] @ v[:, i] for i in range(m.sizes.heads)], 1)


@exact
def heads_unbind(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack(
        [a @ b for a, b in zip(w.unbind(1), v.unbind(1), strict=True)], 1
    )


@exact
def heads_chunk(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.cat(
        [
            a @ b
            for a, b in zip(*(t.chunk(m.sizes.heads, 1) for t in (w, v)), strict=True)
        ],
        1,
    )


@exact
def heads_split(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.cat(
        [
            torch.matmul(a.squeeze(1), b.squeeze(1))
            for a, b in zip(torch.split(w, 1, 1), v.split(1, 1), strict=True)
        ],
        -1,
    )


@exact
def heads_einsum_loop(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.cat(
        [torch.einsum("bqk,bkd->bqd", w[:, i], v[:, i]) for i in range(m.sizes.heads)],
        -1,
    )


@exact
def examples_loop(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack([w[i] @ v[i] for i in range(v.shape[0])])


@exact
def queries_loop(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack(
        [(w[:, :, i].unsqueeze(-1) * v).sum(-2) for i in range(m.sizes.queries)], 1
    )


@exact
def first_query_only(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return (w[:, :, 0].unsqueeze(-1) * v).sum(-2)


@exact
def first_query_only_mm(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w[:, :, :1] @ v


@exact
def matvec(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [torch.mv(v[b, h].T, w[b, h, i]) for i in range(w.shape[2])]
                    )
                    for h in range(w.shape[1])
                ]
            )
            for b in range(w.shape[0])
        ]
    )


@exact
def dot1d(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack([w[b, h, i] @ v[b, h] for i in range(w.shape[2])])
                    for h in range(w.shape[1])
                ]
            )
            for b in range(w.shape[0])
        ]
    )


@exact
def swap_tail(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k).swapaxes(1, 2), -1, lambda t: t.transpose(1, 2))
    return w.transpose(1, 2).matmul(v)


@exact
def baddbmm(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, Q, K = lengths(m, v)
    w = m.softmax(scores(q, k), -1, same)
    return torch.baddbmm(
        torch.zeros(b * h, Q, v.shape[-1], dtype=v.dtype),
        w.reshape(b * h, Q, K),
        v.reshape(b * h, K, -1),
    ).view(b, -1)


@exact
def halves_of_channels(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.cat([w @ v[..., :1], w @ v[..., 1:]], -1)


@exact
def halves_of_keys(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    n = w.shape[-1] // 2
    return w[..., :n] @ v[:, :, :n] + w[..., n:] @ v[:, :, n:]


@exact
def product_mean(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return (w.unsqueeze(-1) * v.unsqueeze(2)).mean(3)


@exact
def product_einsum_sum(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.einsum("bhqk,bhkd->bhqkd", w, v).sum(3)


@exact
def linear_function(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack(
        [
            torch.stack([F.linear(w[b, h], v[b, h].T) for h in range(w.shape[1])])
            for b in range(w.shape[0])
        ]
    )


@exact
def linalg_matmul(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.linalg.matmul(w, v)


@exact
def layernormed(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return F.layer_norm(w, w.shape[-1:]) @ v


@exact
def where(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.where(torch.ones_like(w).tril().bool(), w, 0.0) @ v


@exact
def where_other(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.where(torch.ones_like(w).tril().bool(), w, torch.zeros_like(w)) @ v


@exact
def clamp(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w.clamp(min=1e-6) @ v


@exact
def exp_of_log_softmax(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = F.log_softmax(scores(q, k), -1).exp()
    m.retained.append((w, same))
    return w @ v


@exact
def masked_fill(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w.masked_fill(torch.ones_like(w).triu(1).bool(), 0) @ v


@exact
def tril(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w.tril() @ v


@exact
def square_root(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w.sqrt() @ v


@exact
def normalized(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return F.normalize(w, p=1, dim=-1) @ v


@exact
def centered(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return (w - w.mean(-1, keepdim=True)) @ v


@exact
def residual_eye(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return (w + torch.eye(w.shape[2], w.shape[3], dtype=w.dtype)) @ v


@exact
def reshaped_there_and_back(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    b, h, Q, K = w.shape
    return (
        w.permute(0, 2, 1, 3)
        .reshape(b, Q * h, K)
        .view(b, Q, h, K)
        .transpose(1, 2)
        .flatten(0, 2)
        .unflatten(0, (b, h, Q))
        @ v
    )


@lost
def product_flattened(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    b, h, Q, K = w.shape
    x = w.reshape(-1, 1) * v.unsqueeze(2).expand(b, h, Q, K, v.shape[-1]).reshape(
        -1, v.shape[-1]
    )
    return x.view(b, h, Q, K, -1).sum(3)


@lost
def tensordot(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack(
        [
            torch.stack(
                [torch.tensordot(w[b, h], v[b, h], dims=1) for h in range(w.shape[1])]
            )
            for b in range(w.shape[0])
        ]
    )


@lost
def addcmul(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.addcmul(
        torch.zeros((), dtype=v.dtype), w.unsqueeze(-1), v.unsqueeze(2)
    ).sum(3)


@lost
def vecdot(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.linalg.vecdot(w.unsqueeze(-2), v.mT.unsqueeze(2), dim=-1)


@lost
def chain_matmul(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack(
        [
            torch.stack(
                [
                    torch.linalg.multi_dot(
                        [w[b, h], v[b, h], torch.eye(2, dtype=v.dtype)]
                    )
                    for h in range(w.shape[1])
                ]
            )
            for b in range(w.shape[0])
        ]
    )


@lost
def conv_heads(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    h = w.shape[1]
    mix = numbers(h, h, 1, 1)
    return F.conv2d(w, mix) @ v


@lost
def setitem(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    buf = torch.zeros_like(w)
    buf[...] = w
    return buf @ v


@lost
def setitem_heads(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    buf = torch.zeros_like(w)
    for i in range(w.shape[1]):
        buf[:, i] = w[:, i]
    return buf @ v


@lost
def index_select(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    idx = torch.arange(w.shape[-1]).flip(0)
    return w.index_select(-1, idx) @ v.index_select(2, idx)


@lost
def fancy_heads(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    idx = torch.arange(w.shape[1]).flip(0)
    return w[:, idx] @ v[:, idx]


@lost
def gather(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    idx = torch.zeros_like(w, dtype=torch.long)
    return w.gather(-1, idx) @ v


@lost
def key_appended(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.cat([w, torch.zeros_like(w[..., :1])], -1) @ torch.cat(
        [v, v[:, :, :1]], 2
    )


@lost
def heads_twice(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.cat([w, w], 1) @ torch.cat([v, v], 1)


@lost
def pad(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return F.pad(w, (0, 1)) @ F.pad(v, (0, 0, 0, 1))


@lost
def repeat(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w.repeat(1, 2, 1, 1) @ v.repeat(1, 2, 1, 1)


@lost
def repeat_interleave(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w.repeat_interleave(2, 1) @ v.repeat(1, 2, 1, 1)


@lost
def flip(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w.flip(-1) @ v.flip(2)


@lost
def roll(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return w.roll(1, -1) @ v.roll(1, 2)


@lost
def stacked(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return torch.stack([w, w]) @ v


@lost
def key_loop(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    return sum(w[..., i : i + 1] * v[:, :, i : i + 1] for i in range(w.shape[-1]))


@lost
def key_loop_acc(m: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    w = m.softmax(scores(q, k), -1, same)
    out = torch.zeros(*w.shape[:3], v.shape[-1], dtype=v.dtype)
    for i in range(w.shape[-1]):
        out = out + w[..., i, None] * v[:, :, None, i]
    return out
