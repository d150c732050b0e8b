"""Which modules of a model are in the recorded layers, and around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import Module, ModuleDict, ModuleList

# A module's name, the module, and which of the recorded layers contain it.
Named = tuple[str, Module, tuple[int, ...]]


def check_layer(layer: Any) -> None:
    if not isinstance(layer, Module):
        raise TypeError(
            "layer must be a torch.nn.Module or a list of them, got "
            f"{type(layer).__name__}: {layer!r:.80}. find_attention_layers(model, ...) "
            "lists the modules of a model that attend."
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in layer.modules()):
        raise TypeError(
            f"{type(layer).__name__} is compiled with torch.jit (scripted or traced), "
            "which hides its attention calls. Explain the original Python module."
        )


def named_modules(layers: Sequence[Module], model: Module | None) -> Iterator[Named]:
    """Every module in the layers once, with the name that the model has for it."""
    known: dict[int, str] = {}
    if model is not None:
        known = {id(module): name for name, module in model.named_modules()}
    found: dict[int, Named] = {}
    for index, layer in enumerate(layers):
        top = type(layer).__name__
        if len(layers) > 1:
            top = f"{top}[{index}]"  # its index in the user's list
        for path, module in layer.named_modules(prefix=top):
            name = known.get(id(module), path)
            first, _, within = found.get(id(module), (name, module, ()))
            found[id(module)] = (first, module, (*within, index))
    yield from found.values()


def layer_starts(layers: Sequence[Module]) -> dict[int, tuple[int, ...]]:
    """Which of the layers begin with a module's forward pass, by its id. A list or
    dictionary of modules has none, so its children are used."""
    starts: dict[int, tuple[int, ...]] = {}
    for index, layer in enumerate(layers):
        waiting = [layer]
        while waiting:
            module = waiting.pop()
            if isinstance(module, (ModuleList, ModuleDict)):
                waiting.extend(module.children())
            else:
                starts[id(module)] = (*starts.get(id(module), ()), index)
    return starts


def containing(model: Module, inner: set[int]) -> list[Module]:
    """The modules of a model that contain one of the inner ones (by id) and are not
    inner themselves."""
    found: dict[int, bool] = {}
    outer: list[Module] = []

    def contains(module: Module) -> bool:
        if id(module) in inner:
            return True
        if id(module) not in found:
            found[id(module)] = False  # for a module that contains itself
            below = [contains(child) for child in module.children()]
            found[id(module)] = any(below)
            if found[id(module)]:
                outer.append(module)
        return found[id(module)]

    contains(model)
    return outer
