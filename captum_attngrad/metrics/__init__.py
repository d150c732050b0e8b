r"""
Measures of how good an explanation is, by the property that they measure.

The functions behind them are in :mod:`captum_attngrad.metrics.functional`, and what the
perturbations are made of in the packages of the properties.
"""

from captum_attngrad.metrics.base import (
    Batch,
    Corpus,
    Explain,
    ExplainedBatch,
    Metric,
    Perturbation,
)
from captum_attngrad.metrics.consistency import (
    ClassDistanceRatio,
    CorpusMetric,
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
from captum_attngrad.metrics.faithfulness import (
    Comprehensiveness,
    DecisionFlip,
    ErasureMetric,
    Infidelity,
    InhibitorWords,
    LeaveOneOutAgreement,
    PolarityViolation,
    PositiveWords,
    Sufficiency,
)
from captum_attngrad.metrics.functional.masking import Answers
from captum_attngrad.metrics.reexplain import (
    ReexplainMetric,
)
from captum_attngrad.metrics.resilience import (
    InvariantModelChanges,
    NeighborSubstitution,
    NotApplicableError,
    Resilience,
    register_invariance,
)
from captum_attngrad.metrics.sanity import (
    ParameterRandomization,
    ParameterShuffling,
)
from captum_attngrad.metrics.sensitivity import (
    AttackDetection,
    AttackLocalization,
    EmbeddingAttack,
    EmbeddingNoise,
    SensitivityMax,
    TokenAttack,
)

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
