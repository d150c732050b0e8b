r"""Consistency: do the same words explain texts of the same class?"""

from captum_attngrad.metrics.consistency.base import (
    CorpusMetric,
)
from captum_attngrad.metrics.consistency.consistency import (
    ClassDistanceRatio,
    DaviesBouldin,
    InterClassSeparation,
    IntraClassCohesion,
    Silhouette,
)

__all__ = [
    "ClassDistanceRatio",
    "CorpusMetric",
    "DaviesBouldin",
    "InterClassSeparation",
    "IntraClassCohesion",
    "Silhouette",
]
