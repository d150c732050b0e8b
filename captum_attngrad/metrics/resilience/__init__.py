r"""Resilience: do the scores stay the same when the model's answer does?"""

from captum_attngrad.metrics._parameters import (
    NotApplicableError,
    swapped_parameters,
)
from captum_attngrad.metrics.resilience.input_shift import (
    shift_inputs,
)
from captum_attngrad.metrics.resilience.invariances import (
    INVARIANT_CHANGES,
    InvariantChange,
    add_key_constant,
    add_value_constant,
    change_value_basis,
    permute_units,
    register_invariance,
)
from captum_attngrad.metrics.resilience.model_changes import (
    InvariantModelChanges,
    logit_differences,
)
from captum_attngrad.metrics.resilience.recurrent import (
    RecurrentAttention,
    register_recurrent_attention,
)
from captum_attngrad.metrics.resilience.resilience import (
    Resilience,
)
from captum_attngrad.metrics.resilience.substitution import (
    NeighborSubstitution,
)

__all__ = [
    "INVARIANT_CHANGES",
    "InvariantChange",
    "InvariantModelChanges",
    "NeighborSubstitution",
    "NotApplicableError",
    "RecurrentAttention",
    "Resilience",
    "add_key_constant",
    "add_value_constant",
    "change_value_basis",
    "logit_differences",
    "permute_units",
    "register_invariance",
    "register_recurrent_attention",
    "shift_inputs",
    "swapped_parameters",
]
