r"""Sensitivity: does an explanation react to attacks, and only to them?"""

from captum_attngrad.metrics.sensitivity.detection import (
    AttackDetection,
    AttackLocalization,
)
from captum_attngrad.metrics.sensitivity.embedding_attack import (
    AttackedEmbeddings,
    EmbeddingAttack,
    EmbeddingNoise,
    attack_embeddings,
)
from captum_attngrad.metrics.sensitivity.sensitivity_max import (
    SensitivityMax,
)
from captum_attngrad.metrics.sensitivity.token_attack import (
    AttackedTexts,
    TokenAttack,
    attack_tokens,
)

__all__ = [
    "AttackDetection",
    "AttackLocalization",
    "AttackedEmbeddings",
    "AttackedTexts",
    "EmbeddingAttack",
    "EmbeddingNoise",
    "SensitivityMax",
    "TokenAttack",
    "attack_embeddings",
    "attack_tokens",
]
