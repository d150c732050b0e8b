r"""Sanity: does an explanation depend on what the model has learned?"""

from captum_attngrad.metrics.sanity.parameter_randomization import (
    ParameterRandomization,
    ParameterShuffling,
    shuffled_parameters,
)

__all__ = [
    "ParameterRandomization",
    "ParameterShuffling",
    "shuffled_parameters",
]
