r"""
Measures of how good an explanation is, by the property that they measure.

The functions behind them are in :mod:`captum_attngrad.metrics.functional`, and what the
perturbations are made of in the packages of the properties.
"""

from captum_attngrad.metrics._parameters import NotApplicableError
from captum_attngrad.metrics.base import (
    Batch,
    Corpus,
    Explain,
    ExplainedBatch,
    Metric,
    Perturbation,
)
from captum_attngrad.metrics.consistency.base import CorpusMetric
from captum_attngrad.metrics.consistency.consistency import (
    ClassDistanceRatio,
    DaviesBouldin,
    InterClassSeparation,
    IntraClassCohesion,
    Silhouette,
)
from captum_attngrad.metrics.cost import (
    BackwardPasses,
    CostMetric,
    ForwardPasses,
    PeakMemory,
    Seconds,
)
from captum_attngrad.metrics.faithfulness.base import ErasureMetric
from captum_attngrad.metrics.faithfulness.decision_flip import DecisionFlip
from captum_attngrad.metrics.faithfulness.erasure import Comprehensiveness, Sufficiency
from captum_attngrad.metrics.faithfulness.infidelity import Infidelity
from captum_attngrad.metrics.faithfulness.leave_one_out import LeaveOneOutAgreement
from captum_attngrad.metrics.faithfulness.polarity import PolarityViolation
from captum_attngrad.metrics.faithfulness.signed_words import (
    InhibitorWords,
    PositiveWords,
)
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.metrics.reexplain import (
    ReexplainMetric,
)
from captum_attngrad.metrics.resilience.invariances import register_invariance
from captum_attngrad.metrics.resilience.model_changes import InvariantModelChanges
from captum_attngrad.metrics.resilience.resilience import Resilience
from captum_attngrad.metrics.resilience.substitution import NeighborSubstitution
from captum_attngrad.metrics.sanity.parameter_randomization import (
    ParameterRandomization,
    ParameterShuffling,
)
from captum_attngrad.metrics.sensitivity.detection import (
    AttackDetection,
    AttackLocalization,
)
from captum_attngrad.metrics.sensitivity.embedding_attack import (
    EmbeddingAttack,
    EmbeddingNoise,
)
from captum_attngrad.metrics.sensitivity.sensitivity_max import SensitivityMax
from captum_attngrad.metrics.sensitivity.token_attack import TokenAttack

__all__ = [
    "Answers",
    "AttackDetection",
    "AttackLocalization",
    "BackwardPasses",
    "Batch",
    "ClassDistanceRatio",
    "Comprehensiveness",
    "Corpus",
    "CorpusMetric",
    "CostMetric",
    "DaviesBouldin",
    "DecisionFlip",
    "EmbeddingAttack",
    "EmbeddingNoise",
    "ErasureMetric",
    "Explain",
    "ExplainedBatch",
    "ForwardPasses",
    "Infidelity",
    "InhibitorWords",
    "InterClassSeparation",
    "IntraClassCohesion",
    "InvariantModelChanges",
    "LeaveOneOutAgreement",
    "Metric",
    "NeighborSubstitution",
    "NotApplicableError",
    "ParameterRandomization",
    "ParameterShuffling",
    "PeakMemory",
    "Perturbation",
    "PolarityViolation",
    "PositiveWords",
    "ReexplainMetric",
    "Resilience",
    "Seconds",
    "SensitivityMax",
    "Silhouette",
    "Sufficiency",
    "TokenAttack",
    "register_invariance",
]
