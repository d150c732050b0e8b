r"""Faithfulness: does masking tokens affect the model as their scores say?"""

from captum_attngrad.metrics.faithfulness.base import (
    ErasureMetric,
)
from captum_attngrad.metrics.faithfulness.decision_flip import (
    DecisionFlip,
)
from captum_attngrad.metrics.faithfulness.erasure import (
    Comprehensiveness,
    Sufficiency,
)
from captum_attngrad.metrics.faithfulness.infidelity import (
    Infidelity,
)
from captum_attngrad.metrics.faithfulness.leave_one_out import (
    LeaveOneOutAgreement,
)
from captum_attngrad.metrics.faithfulness.polarity import (
    PolarityViolation,
)
from captum_attngrad.metrics.faithfulness.signed_words import (
    InhibitorWords,
    PositiveWords,
)

__all__ = [
    "Comprehensiveness",
    "DecisionFlip",
    "ErasureMetric",
    "Infidelity",
    "InhibitorWords",
    "LeaveOneOutAgreement",
    "PolarityViolation",
    "PositiveWords",
    "Sufficiency",
]
