"""What is around a model: replicas in threads, and the state that must not change."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn


class Replicated(nn.Module):
    """What DataParallel does, with replicas that share one device."""

    def __init__(self, model: nn.Module, parts: int) -> None:
        super().__init__()
        self.module, self.parts = model, parts

    def forward(self, *inputs: Tensor) -> Tensor:
        shards = list(zip(*(t.chunk(self.parts) for t in inputs), strict=True))
        replicas = [self._replica(self.module) for _ in shards]
        return torch.cat(_parallel(replicas, shards))

    @classmethod
    def _replica(cls, module: nn.Module) -> nn.Module:
        replica = module._replicate_for_data_parallel()
        for name, parameter in module._parameters.items():
            setattr(replica, name, parameter)  # a plain attribute, as on a device
        for name, child in module._modules.items():
            replica._modules[name] = None if child is None else cls._replica(child)
        return replica


def _parallel(
    replicas: list[nn.Module], shards: list[tuple[Tensor, ...]]
) -> list[Tensor]:
    results: dict[int, Tensor] = {}
    grad = torch.is_grad_enabled()

    def work(i: int) -> None:
        with torch.set_grad_enabled(grad):
            results[i] = replicas[i](*shards[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(replicas))]
    for thread in reversed(threads):  # finish in any order
        thread.start()
    for thread in threads:
        thread.join()
    return [results[i] for i in range(len(replicas))]


def state(model: nn.Module) -> dict[str, object]:
    modules = list(model.modules())
    return {
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in modules
        ],
        "training": [m.training for m in modules],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [
            None if p.grad is None else p.grad.clone() for p in model.parameters()
        ],
        "modes": torch.overrides._get_current_function_mode_stack(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "grad mode": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "attributes": [sorted(vars(m)) for m in modules],
    }


def unchanged(before: dict[str, object], model: nn.Module) -> None:
    after = state(model)
    for name, value in before.items():
        if name == "grad":
            for old, new in zip(value, after[name], strict=True):
                assert (old is None) is (new is None)
                assert old is None or torch.equal(old, new)
        else:
            assert value == after[name], name
