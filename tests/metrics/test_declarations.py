"""What metrics say about themselves, and which of them share work."""

import pytest

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
    InvariantModelChanges,
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
    TokenAttack,
)

ALL = [
    Comprehensiveness(),
    Sufficiency(),
    PositiveWords(),
    InhibitorWords(),
    DecisionFlip(),
    PolarityViolation(),
    LeaveOneOutAgreement(),
    Infidelity(),
    *(
        Resilience(perturbation, measure)
        for perturbation in (
            InvariantModelChanges(),
            InvariantModelChanges(["value_constant"]),
            NeighborSubstitution(),
        )
        for measure in ("spearman", "cosine", "top_k")
    ),
    *(
        kind(vector, relative)
        for kind in (
            IntraClassCohesion,
            InterClassSeparation,
            ClassDistanceRatio,
            Silhouette,
            DaviesBouldin,
        )
        for vector in ("embedding", "bag")
        for relative in (False, True)
    ),
    *(
        AttackDetection(attack)
        for attack in (TokenAttack(), EmbeddingAttack("fgsm"), EmbeddingAttack("pgd"))
    ),
    AttackLocalization(),
    SensitivityMax(),
    ParameterRandomization(),
    Seconds(),
    ForwardPasses(),
    BackwardPasses(),
    PeakMemory(),
]


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_declarations_are_consistent(metric: Metric) -> None:
    low, high = metric.value_range
    assert low < high
    if metric.higher_is_better:
        assert metric.best_value == high
    else:
        assert metric.best_value == low
    assert metric.property in (
        "faithfulness",
        "resilience",
        "consistency",
        "sensitivity",
        "sanity",
        "cost",
    )
    assert metric.paper or metric.property == "cost"
    assert metric.description
    assert metric.name.isidentifier()


def test_names_are_unique() -> None:
    names = [metric.name for metric in ALL]
    assert len(set(names)) == len(names)


def test_equal_perturbations_share_their_work() -> None:
    assert TokenAttack() == TokenAttack()
    assert hash(TokenAttack()) == hash(AttackLocalization().perturbation)
    assert TokenAttack() != TokenAttack(n_noise=2)
    assert TokenAttack() != EmbeddingAttack()
    assert TokenAttack() != "token_attack"
    assert len({Resilience(measure=m).perturbation for m in ("cosine", "top_k")}) == 1
