"""More architectures, in sizes that differ and in sizes that coincide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from captum_attngrad import AttentionGradient, LayerAttentionGradient
from tests.architectures.cases import Case

pytest.importorskip("transformers")

from tests.architectures import reference
from tests.architectures.softmaxes import softmax_weights


def truth(case, group, implementation, arguments, dtype):
    batch = len(arguments[0])
    if case.interface and implementation != "eager":
        run = case.build(reference.NAME, dtype)
        found = reference.materialised(run.model, lambda: run(*arguments)[:, 1])
        names = {m: n for n, m in run.model.named_modules()}
        return [
            (case.arrange(c.weights.detach(), batch), case.arrange(c.gradient * c.allowed, batch))
            for module in run.modules_of(group)
            for c in found[names[module]]
        ]
    run = case.build("eager", dtype)
    found = softmax_weights(run.modules_of(group), lambda: run(*arguments)[:, 1])
    return [(case.arrange(w, batch), case.arrange(g, batch)) for w, g in found]


def check(case, implementation, batch, length):
    eager32 = case.float32 and implementation == "eager"
    dtype = torch.float32 if eager32 else torch.float64
    tolerance = 1e-5 if eager32 or case.float32 and not case.interface else 1e-9
    run = case.build(implementation, dtype)
    arguments = case.arguments(batch, dtype, length)
    result = []
    for group in case.layers:
        modules = run.modules_of(group)
        expected = truth(case, group, implementation, arguments, dtype)
        method = LayerAttentionGradient(run, modules)
        maps, weights = method.attribute(arguments, 1, return_attention=True)
        while isinstance(maps[0], (tuple, list)): maps = maps[0]
        while isinstance(weights[0], (tuple, list)): weights = weights[0]
        record = method._record_forward(arguments, None)
        result.append((group, sorted({(c.keys_are.status.name, c.keys_are.proved_by) for c in record})))
        assert len(expected) >= 1
        got = torch.cat([m.flatten(2).transpose(0, 1).flatten(1) for m in maps], 1) if 0 else None
        assert len(maps) == len(modules), (len(maps), len(modules))
        it = iter(expected)
        total = 0
        for m, w in zip(maps, weights):
            q = 0
            while q < m.shape[2]:
                A, G = next(it)
                k = m.shape[3]
                part = m[:, :, q : q + A.shape[2]]
                # Forbidden pairs have a weight of 0.
                G = torch.where(A[..., :k] == 0, part.to(G), G[..., :k])
                assert part.shape == G[..., :k].shape, (part.shape, G.shape)
                torch.testing.assert_close(w[:, :, q : q + A.shape[2]], A[..., :k].to(w), rtol=tolerance, atol=tolerance)
                size = G.abs().max()
                assert size > 1e-8
                torch.testing.assert_close(part / size, (G[..., :k] / size).to(part), rtol=tolerance, atol=tolerance)
                total = total + G[..., :k].sum((1, 2))
                q += A.shape[2]
        assert next(it, None) is None
        if case.sums:
            got = AttentionGradient(run, modules).attribute(arguments, 1)[0]
            size = total.abs().max()
            torch.testing.assert_close(got / size, (total / size).to(got), rtol=tolerance, atol=tolerance)
    return result
