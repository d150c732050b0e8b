"""What is private in PyTorch and transformers, and used here, is still there."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from captum_attngrad import _torch
from captum_attngrad._torch import PrivateName
from captum_attngrad._transformers import MODULE, REGISTRY

INSTALLED = tuple(int(part) for part in torch.__version__.split(".")[:2])
NAMES = [name for name in vars(_torch).values() if isinstance(name, PrivateName)]


def gone(name: str) -> str:
    return (
        f"torch {torch.__version__} has moved {name}, last seen in "
        f"{'.'.join(map(str, _torch.LAST_CHECKED))}: adapt captum_attngrad/_torch.py"
    )


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.name)
def test_torch_has_a_private_name_since_the_version_that_is_stated(
    name: PrivateName,
) -> None:
    if name.since <= INSTALLED:
        try:
            _torch.private(name)
        except ImportError as error:
            pytest.fail(f"{gone(f'{name.where}.{name.name}')} ({error})")
    else:
        with pytest.raises(ImportError, match=f"no {name.where}.{name.name}, which"):
            _torch.private(name)


def test_compiled_objects_name_their_originals() -> None:
    module = torch.nn.Linear(2, 2)
    compiled: Any = torch.compile(module, backend="eager")
    assert _torch.original(compiled) is module, gone(_torch.ORIGINAL_MODULE)
    assert _torch.is_compiled(compiled)
    assert not _torch.is_compiled(module)
    module.compile(backend="eager")
    assert _torch.is_compiled(module), gone(_torch.COMPILED_CALL.name)

    def function(x: Any) -> Any:
        return x + 1

    compiled = torch.compile(function, backend="eager")
    assert _torch.original(compiled) is function, gone(_torch.ORIGINAL_FUNCTION)
    assert _torch.original(function) is function


def test_modules_keep_their_own_parameters_in_a_dictionary() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    assert _torch.own_parameters(module) == {}
    found = _torch.own_parameters(module[0])
    assert found["weight"] is module[0].weight, gone(_torch.PARAMETERS)
    assert found["bias"] is None


def test_multi_head_attention_asks_the_mode_in_the_known_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = F.multi_head_attention_forward.__code__.co_names
    assert _torch.ASKS_MODE in names, gone("has_torch_function")
    attention = torch.nn.MultiheadAttention(4, 2)
    x = torch.randn(3, 1, 4)
    args: list[Any] = [x, x, x, 4, 2, attention.in_proj_weight, attention.in_proj_bias]
    args += [None, None, False, 0.0, attention.out_proj.weight, attention.out_proj.bias]
    for a, b in zip(
        F.multi_head_attention_forward(*args),
        _torch.opened_multi_head_attention()(*args),
        strict=True,
    ):
        torch.testing.assert_close(a, b)

    def other() -> None: ...

    _torch.opened_multi_head_attention.cache_clear()
    monkeypatch.setattr(F, "multi_head_attention_forward", other)
    with pytest.raises(ImportError, match="has no has_torch_function in F"):
        _torch.opened_multi_head_attention()


def test_transformers_has_its_registry() -> None:
    pytest.importorskip("transformers", minversion="4.48")
    registry = getattr(importlib.import_module(MODULE), REGISTRY, None)
    assert registry is not None, f"transformers has moved {REGISTRY}"
    assert callable(registry.register)
    assert "sdpa" in registry
