r"""Measures of how good an explanation is."""

from captum_attngrad.metrics._copies import NotApplicableError
from captum_attngrad.metrics._vectors import score_vectors
from captum_attngrad.metrics.adversarial import (
    AttackDetection,
    AttackLocalization,
    SensitivityMax,
    detection_auroc,
    max_sensitivity,
    top_share,
)
from captum_attngrad.metrics.agreement import (
    average_ranks,
    cosine_similarity,
    kendall_tau_b,
    spearman,
    top_k_overlap,
)
from captum_attngrad.metrics.base import (
    DEFAULT_BINS,
    CorpusMetric,
    CostMetric,
    ErasureMetric,
    Explain,
    Metric,
    Perturbation,
    ReexplainMetric,
)
from captum_attngrad.metrics.borrowed import borrowed_parameters
from captum_attngrad.metrics.consistency import (
    ClassDistanceRatio,
    DaviesBouldin,
    InterClassSeparation,
    IntraClassCohesion,
    Silhouette,
    class_distance_ratio,
    davies_bouldin,
    inter_class_separation,
    intra_class_cohesion,
    silhouette,
)
from captum_attngrad.metrics.cost import (
    BackwardPasses,
    Cost,
    ForwardPasses,
    PeakMemory,
    Seconds,
    measure_cost,
    peak_memory,
)
from captum_attngrad.metrics.decision_flip import DecisionFlip, decision_flip_fraction
from captum_attngrad.metrics.embedding_attack import (
    AttackedEmbeddings,
    EmbeddingAttack,
    EmbeddingNoise,
    attack_embeddings,
)
from captum_attngrad.metrics.erasure import (
    Comprehensiveness,
    Sufficiency,
    comprehensiveness,
    sufficiency,
)
from captum_attngrad.metrics.infidelity import (
    Infidelity,
    random_removals,
    removal_infidelity,
)
from captum_attngrad.metrics.input_shift import shift_inputs
from captum_attngrad.metrics.invariances import (
    INVARIANT_CHANGES,
    add_key_constant,
    add_value_constant,
    change_value_basis,
    permute_units,
)
from captum_attngrad.metrics.leave_one_out import (
    LeaveOneOutAgreement,
    leave_one_out_masks,
)
from captum_attngrad.metrics.neighbours import nearest_neighbours
from captum_attngrad.metrics.polarity import PolarityViolation, polarity_violation
from captum_attngrad.metrics.randomization import (
    ParameterRandomization,
    ParameterShuffling,
    shuffled_parameters,
)
from captum_attngrad.metrics.removal import (
    Answers,
    n_top_tokens,
    removal_answers,
    removal_probabilities,
    top_token_masks,
)
from captum_attngrad.metrics.resilience import (
    InvariantModelChanges,
    NeighbourSubstitution,
    Resilience,
    logit_differences,
    mean_agreement,
)
from captum_attngrad.metrics.signed_words import (
    InhibitorWords,
    PositiveWords,
    inhibitor_word_rise,
    positive_word_drop,
)
from captum_attngrad.metrics.token_attack import (
    AttackedTexts,
    TokenAttack,
    attack_tokens,
)

__all__ = [
    "DEFAULT_BINS",
    "INVARIANT_CHANGES",
    "Answers",
    "AttackDetection",
    "AttackLocalization",
    "AttackedEmbeddings",
    "AttackedTexts",
    "BackwardPasses",
    "ClassDistanceRatio",
    "Comprehensiveness",
    "CorpusMetric",
    "Cost",
    "CostMetric",
    "DaviesBouldin",
    "DecisionFlip",
    "EmbeddingAttack",
    "EmbeddingNoise",
    "ErasureMetric",
    "Explain",
    "ForwardPasses",
    "Infidelity",
    "InhibitorWords",
    "InterClassSeparation",
    "IntraClassCohesion",
    "InvariantModelChanges",
    "LeaveOneOutAgreement",
    "Metric",
    "NeighbourSubstitution",
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
    "add_key_constant",
    "add_value_constant",
    "attack_embeddings",
    "attack_tokens",
    "average_ranks",
    "borrowed_parameters",
    "change_value_basis",
    "class_distance_ratio",
    "comprehensiveness",
    "cosine_similarity",
    "davies_bouldin",
    "decision_flip_fraction",
    "detection_auroc",
    "inhibitor_word_rise",
    "inter_class_separation",
    "intra_class_cohesion",
    "kendall_tau_b",
    "leave_one_out_masks",
    "logit_differences",
    "max_sensitivity",
    "mean_agreement",
    "measure_cost",
    "n_top_tokens",
    "nearest_neighbours",
    "peak_memory",
    "permute_units",
    "polarity_violation",
    "positive_word_drop",
    "random_removals",
    "removal_answers",
    "removal_infidelity",
    "removal_probabilities",
    "score_vectors",
    "shift_inputs",
    "shuffled_parameters",
    "silhouette",
    "spearman",
    "sufficiency",
    "top_k_overlap",
    "top_share",
    "top_token_masks",
]
