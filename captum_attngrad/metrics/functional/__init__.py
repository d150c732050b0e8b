r"""The measures as pure functions."""

from captum_attngrad.metrics.functional.agreement import (
    AGREEMENTS,
    average_ranks,
    cosine_similarity,
    kendall_tau_b,
    mean_agreement,
    spearman,
    top_k_overlap,
)
from captum_attngrad.metrics.functional.consistency import (
    class_distance_ratio,
    davies_bouldin,
    inter_class_separation,
    intra_class_cohesion,
    silhouette,
)
from captum_attngrad.metrics.functional.cost import (
    Cost,
    measure_cost,
    peak_memory,
)
from captum_attngrad.metrics.functional.faithfulness import (
    comprehensiveness,
    decision_flip_fraction,
    infidelity,
    inhibitor_word_rise,
    mean_drop,
    polarity_violation,
    positive_word_drop,
    sufficiency,
)
from captum_attngrad.metrics.functional.masking import (
    Answers,
    masked_answers,
)
from captum_attngrad.metrics.functional.masks import (
    DEFAULT_BINS,
    all_but_top_token_masks,
    leave_one_out_masks,
    n_top_tokens,
    random_masks,
    top_token_masks,
)
from captum_attngrad.metrics.functional.neighbors import (
    nearest_neighbors,
)
from captum_attngrad.metrics.functional.sensitivity import (
    detection_auroc,
    sensitivity_max,
    top_share,
)
from captum_attngrad.metrics.functional.vectors import (
    score_vectors,
)

__all__ = [
    "AGREEMENTS",
    "DEFAULT_BINS",
    "Answers",
    "Cost",
    "all_but_top_token_masks",
    "average_ranks",
    "class_distance_ratio",
    "comprehensiveness",
    "cosine_similarity",
    "davies_bouldin",
    "decision_flip_fraction",
    "detection_auroc",
    "infidelity",
    "inhibitor_word_rise",
    "inter_class_separation",
    "intra_class_cohesion",
    "kendall_tau_b",
    "leave_one_out_masks",
    "masked_answers",
    "mean_agreement",
    "mean_drop",
    "measure_cost",
    "n_top_tokens",
    "nearest_neighbors",
    "peak_memory",
    "polarity_violation",
    "positive_word_drop",
    "random_masks",
    "score_vectors",
    "sensitivity_max",
    "silhouette",
    "spearman",
    "sufficiency",
    "top_k_overlap",
    "top_share",
    "top_token_masks",
]
