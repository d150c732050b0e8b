r"""The metrics that are built in, by name."""

from collections.abc import Callable, Sequence

import captum_attngrad.metrics as built_in
from captum_attngrad.metrics import Metric

#: A metric or its name.
MetricLike = str | Metric

# The metrics of a comparison that names none.
_DEFAULT: tuple[Callable[[], Metric], ...] = (
    built_in.Comprehensiveness,
    built_in.Sufficiency,
    built_in.PositiveWords,
    built_in.InhibitorWords,
    built_in.DecisionFlip,
    built_in.PolarityViolation,
    built_in.LeaveOneOutAgreement,
    built_in.Infidelity,
    built_in.Resilience,
    lambda: built_in.Resilience(measure="top_k"),
    lambda: built_in.Resilience(built_in.NeighborSubstitution()),
    lambda: built_in.Resilience(built_in.NeighborSubstitution(), "top_k"),
    built_in.IntraClassCohesion,
    built_in.InterClassSeparation,
    built_in.ClassDistanceRatio,
    built_in.Silhouette,
    built_in.DaviesBouldin,
    lambda: built_in.Silhouette(relative=True),
    built_in.AttackDetection,
    lambda: built_in.AttackDetection(built_in.EmbeddingAttack("pgd")),
    built_in.AttackLocalization,
    built_in.SensitivityMax,
    built_in.ParameterRandomization,
    built_in.ForwardPasses,
    built_in.BackwardPasses,
)
# Further metrics, by name only.
_MORE: tuple[Callable[[], Metric], ...] = (
    lambda: built_in.Resilience(measure="cosine"),
    lambda: built_in.Resilience(built_in.NeighborSubstitution(), "cosine"),
    lambda: built_in.IntraClassCohesion("bag"),
    lambda: built_in.Silhouette("bag"),
    lambda: built_in.AttackDetection(built_in.EmbeddingAttack("fgsm")),
    built_in.Seconds,
    built_in.PeakMemory,
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
