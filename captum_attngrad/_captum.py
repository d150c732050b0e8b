"""All that is used of Captum's private modules.

Captum does not promise to keep these names. Each is looked up when it is first needed,
so that an upgrade of Captum cannot break ``import captum_attngrad``.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import captum
from torch import Tensor

if TYPE_CHECKING:
    from captum._utils.typing import BaselineType as BaselineType
    from captum._utils.typing import TargetType as TargetType
    from captum._utils.typing import TokenizerLike as TokenizerLike
else:
    BaselineType = TargetType = TokenizerLike = Any

# Private name -> the module of Captum that holds it.
PRIVATE_NAMES = {
    "_expand_additional_forward_args": "captum._utils.common",
    "_expand_target": "captum._utils.common",
    "_format_additional_forward_args": "captum._utils.common",
    "_format_inputs": "captum._utils.common",
    "_select_targets": "captum._utils.common",
    "SUPPORTED_METHODS": "captum.attr._utils.approximation_methods",
    "approximation_parameters": "captum.attr._utils.approximation_methods",
    "DEFAULT_GEN_ARGS": "captum.attr._core.llm_attr",
    "_convert_ids_to_pretty_tokens": "captum.attr._core.llm_attr",
}


@functools.cache
def private(name: str) -> Any:
    """
    Look up one of :data:`PRIVATE_NAMES`.

    Raises:
        ImportError: if the installed version of Captum does not have it.
    """
    module = PRIVATE_NAMES[name]
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"captum {captum.__version__} has no {module}.{name}, which "
            "captum_attngrad needs. Install a version that has it: "
            "pip install 'captum>=0.8,<0.10'."
        ) from error


def formatted_inputs(inputs: Any) -> tuple[Tensor, ...]:
    """The inputs of an attribution as a tuple of tensors."""
    formatted: tuple[Tensor, ...] = private("_format_inputs")(inputs)
    return formatted


def formatted_arguments(additional_forward_args: object | None) -> tuple[Any, ...]:
    """The additional arguments as a tuple, empty for None."""
    return private("_format_additional_forward_args")(additional_forward_args) or ()


def repeated_arguments(arguments: tuple[Any, ...], times: int) -> tuple[Any, ...]:
    """The additional arguments for the whole batch, repeated ``times`` times."""
    repeated: tuple[Any, ...]
    repeated = private("_expand_additional_forward_args")(arguments or None, times)
    return repeated or ()


def repeated_target(target: TargetType, times: int) -> TargetType:
    """The targets for the whole batch, repeated ``times`` times."""
    repeated: TargetType = private("_expand_target")(target, times)
    return repeated


def selected_outputs(output: Tensor, target: Any) -> Tensor:
    """``output[target]`` for a target in one of Captum's forms."""
    selected: Tensor = private("_select_targets")(output, target)
    return selected


def integration_methods() -> list[str]:
    """The names of Captum's methods to approximate an integral."""
    return list(private("SUPPORTED_METHODS"))


def integration_points(method: str, n_steps: int) -> list[tuple[float, float]]:
    """``(position, weight)`` for each point of an integral from 0 to 1."""
    weights, positions = private("approximation_parameters")(method)
    return list(zip(positions(n_steps), weights(n_steps), strict=True))


def default_generation_arguments() -> dict[str, Any]:
    """What Captum passes to ``generate`` unless the user says otherwise."""
    return dict(private("DEFAULT_GEN_ARGS"))


def readable_tokens(ids: Tensor, tokenizer: TokenizerLike) -> list[str]:
    """Token ids as the strings that Captum shows."""
    tokens: list[str] = private("_convert_ids_to_pretty_tokens")(ids, tokenizer)
    return tokens
