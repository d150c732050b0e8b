r"""Metrics of how consistently texts of a class are explained."""

from captum_attngrad.metrics.consistency.base import CorpusMetric
from captum_attngrad.metrics.functional.consistency import (
    class_distance_ratio,
    davies_bouldin,
    inter_class_separation,
    intra_class_cohesion,
    silhouette,
)


class IntraClassCohesion(CorpusMetric):
    """See :func:`~captum_attngrad.metrics.functional.intra_class_cohesion`; arguments
    as :class:`CorpusMetric`."""

    name = "cohesion"
    higher_is_better = True
    value_range = (-1.0, 1.0)
    best_value = 1.0
    paper = "Chakraborty et al., Paying Attention to Attention for Explanation"
    description = "mean cosine to the explanations of other texts of the same class"
    undefined = "no other text of the class"

    compute = staticmethod(intra_class_cohesion)


class InterClassSeparation(CorpusMetric):
    """See :func:`~captum_attngrad.metrics.functional.inter_class_separation`; arguments
    as :class:`CorpusMetric`."""

    name = "separation"
    higher_is_better = True
    value_range = (-2.0, 2.0)
    best_value = 2.0
    paper = "Chakraborty et al., Paying Attention to Attention for Explanation"
    description = (
        "mean cosine to the explanations of other texts of the same class minus that "
        "to those of other classes"
    )
    undefined = "only one class, or no other text of the class"

    compute = staticmethod(inter_class_separation)


class ClassDistanceRatio(CorpusMetric):
    """See :func:`~captum_attngrad.metrics.functional.class_distance_ratio`; arguments
    as :class:`CorpusMetric`."""

    name = "class_distance_ratio"
    higher_is_better = True
    value_range = (0.0, float("inf"))
    best_value = float("inf")
    paper = "Chakraborty et al., Paying Attention to Attention for Explanation"
    description = (
        "mean cosine distance between the explanations of different classes over that "
        "within classes"
    )
    undefined = "only one class, or one text in each"
    per_example = False

    compute = staticmethod(class_distance_ratio)


class Silhouette(CorpusMetric):
    """See :func:`~captum_attngrad.metrics.functional.silhouette`; arguments as
    :class:`CorpusMetric`."""

    name = "silhouette"
    higher_is_better = True
    value_range = (-1.0, 1.0)
    best_value = 1.0
    paper = "Rousseeuw 1987, Silhouettes"
    description = "silhouette (cosine distance) of the explanations in their classes"
    undefined = "only one class, or one text in each"

    compute = staticmethod(silhouette)


class DaviesBouldin(CorpusMetric):
    """See :func:`~captum_attngrad.metrics.functional.davies_bouldin`; arguments as
    :class:`CorpusMetric`."""

    name = "davies_bouldin"
    higher_is_better = False
    value_range = (0.0, float("inf"))
    best_value = 0.0
    paper = "Davies and Bouldin 1979, A Cluster Separation Measure"
    description = "Davies–Bouldin index of the explanations in their classes"
    undefined = "only one class, or one text in each"
    per_example = False

    compute = staticmethod(davies_bouldin)
