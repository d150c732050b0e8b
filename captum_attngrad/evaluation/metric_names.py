r"""The metrics that are built in, by name."""

from collections.abc import Callable, Sequence

from captum_attngrad.metrics import (
    AttackDetection,
    AttackLocalization,
    BackwardPasses,
    ClassDistanceRatio,
    Comprehensiveness,
    DaviesBouldin,
    DecisionFlip,
    EmbeddingAttack,
    ForwardPasses,
    Infidelity,
    InhibitorWords,
    InterClassSeparation,
    IntraClassCohesion,
    LeaveOneOutAgreement,
    Metric,
    NeighborSubstitution,
    ParameterRandomization,
    PeakMemory,
    PolarityViolation,
    PositiveWords,
    Resilience,
    Seconds,
    SensitivityMax,
    Silhouette,
    Sufficiency,
)

#: A metric or its name.
MetricLike = str | Metric

# The metrics of a comparison that names none.
_DEFAULT: tuple[Callable[[], Metric], ...] = (
    Comprehensiveness,
    Sufficiency,
    PositiveWords,
    InhibitorWords,
    DecisionFlip,
    PolarityViolation,
    LeaveOneOutAgreement,
    Infidelity,
    Resilience,
    lambda: Resilience(measure="top_k"),
    lambda: Resilience(NeighborSubstitution()),
    lambda: Resilience(NeighborSubstitution(), "top_k"),
    IntraClassCohesion,
    InterClassSeparation,
    ClassDistanceRatio,
    Silhouette,
    DaviesBouldin,
    lambda: Silhouette(relative=True),
    AttackDetection,
    lambda: AttackDetection(EmbeddingAttack("pgd")),
    AttackLocalization,
    SensitivityMax,
    ParameterRandomization,
    ForwardPasses,
    BackwardPasses,
)
# Further metrics, by name only.
_MORE: tuple[Callable[[], Metric], ...] = (
    lambda: Resilience(measure="cosine"),
    lambda: Resilience(NeighborSubstitution(), "cosine"),
    lambda: IntraClassCohesion("bag"),
    lambda: Silhouette("bag"),
    lambda: AttackDetection(EmbeddingAttack("fgsm")),
    Seconds,
    PeakMemory,
)


def _named(builders: Sequence[Callable[[], Metric]]) -> dict[str, Metric]:
    metrics = [build() for build in builders]
    return {metric.name: metric for metric in metrics}


def available_metrics() -> tuple[str, ...]:
    """Names of the metrics that are built in."""
    return tuple(_named((*_DEFAULT, *_MORE)))


def default_metrics() -> tuple[Metric, ...]:
    """The metrics that :func:`compare` measures when none are named."""
    return tuple(_named(_DEFAULT).values())


def _check_declared(metric: Metric) -> None:
    """Raises a TypeError if the metric lacks a declaration that the tables need."""
    missing = [name for name in Metric.__annotations__ if not hasattr(metric, name)]
    if missing:
        raise TypeError(
            f"The metric {type(metric).__name__} does not declare "
            f"{', '.join(missing)}; see captum_attngrad.Metric for what they mean."
        )


def resolve_metrics(metrics: Sequence[MetricLike] | None) -> tuple[Metric, ...]:
    r"""
    Looks metrics up by name.

    Args:
        metrics (Sequence of str or Metric, optional): Names or metrics; None for
            :func:`default_metrics`.

    Returns:
        *tuple of Metric*

    Raises:
        ValueError: If a name is not known or occurs twice, or there is none.
        TypeError: If an entry is neither a name nor a metric, or a metric does not
            declare what it is.
    """
    if metrics is None:
        return default_metrics()
    if isinstance(metrics, str):
        raise TypeError(f"metrics is the string {metrics!r}; expected a list of names.")
    known = _named((*_DEFAULT, *_MORE))
    chosen: list[Metric] = []
    for metric in metrics:
        if isinstance(metric, str):
            if metric not in known:
                raise ValueError(
                    f"There is no metric named {metric!r}; expected one of: "
                    f"{', '.join(known)}."
                )
            metric = known[metric]
        if not isinstance(metric, Metric):
            raise TypeError(
                f"metrics holds {metric!r:.80}; expected a name or a Metric, such as "
                "Comprehensiveness()."
            )
        _check_declared(metric)
        if metric.name in (other.name for other in chosen):
            raise ValueError(f"The metric {metric.name!r} was given twice.")
        chosen.append(metric)
    if not chosen:
        raise ValueError("metrics is empty; expected at least one metric.")
    return tuple(chosen)
