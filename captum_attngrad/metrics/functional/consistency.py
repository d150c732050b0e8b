r"""Consistency: do the same words explain texts of the same class?"""

from types import ModuleType

import torch
from torch import Tensor

from captum_attngrad._classes import check_labels
from captum_attngrad._extras import require
from captum_attngrad.metrics.functional._precision import wide


def _check(vectors: Tensor, classes: Tensor) -> None:
    if vectors.dim() != 2 or classes.shape != vectors.shape[:1]:
        raise ValueError(
            f"vectors has shape {tuple(vectors.shape)} and classes has shape "
            f"{tuple(classes.shape)}; expected (texts, dim) and (texts,)."
        )
    check_labels("classes", classes.tolist())


def _unit(vectors: Tensor) -> Tensor:
    vectors = wide(vectors)
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, 1)


def _mean_cosines(vectors: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine of each text to the others of its class, and to those of other
    classes; NaN where there are none. Sums over classes keep this linear in the
    texts."""
    _check(vectors, classes)
    unit = _unit(vectors)
    _, index, counts = classes.unique(return_inverse=True, return_counts=True)
    sums = unit.new_zeros(len(counts), unit.shape[1]).index_add_(0, index, unit)
    mine, n_mine = sums[index], counts[index]
    within = (unit * (mine - unit)).sum(dim=1) / (n_mine - 1)
    n_other = len(unit) - n_mine
    between = (unit * (unit.sum(dim=0) - mine)).sum(dim=1) / n_other
    return (
        within.masked_fill(n_mine == 1, torch.nan),
        between.masked_fill(n_other == 0, torch.nan),
    )


def intra_class_cohesion(vectors: Tensor, classes: Tensor) -> Tensor:
    r"""
    Mean cosine between each text's vector and those of the other texts of its class.

    Args:
        vectors (Tensor): Shape (texts, dim). A zero vector has cosine 0 with all.
        classes (Tensor): Explained classes, shape (texts,).

    Returns:
        *Tensor*: Shape (texts,), from -1 to 1; NaN for a text alone in its class. Time
        and memory grow linearly with the texts.

    Raises:
        ValueError: On shapes that do not agree, or classes that are not whole numbers.
    """
    return _mean_cosines(vectors, classes)[0]


def inter_class_separation(vectors: Tensor, classes: Tensor) -> Tensor:
    r"""
    How much closer each text's vector is to its own class than to the others: its
    mean cosine to the other texts of its class minus that to the texts of other
    classes.

    For two classes the mean over texts estimates half the squared distance between the
    classes' centroids (of vectors of length 1), without bias. The mean distance to
    other classes alone would not do: vectors of pure noise are all far apart.

    Args:
        vectors (Tensor): Shape (texts, dim). A zero vector has cosine 0 with all.
        classes (Tensor): Explained classes, shape (texts,).

    Returns:
        *Tensor*: Shape (texts,), from -2 to 2, 0 if the classes do not differ; NaN for
        a text alone in its class, or if there is only one class.

    Raises:
        ValueError: On shapes that do not agree, or classes that are not whole numbers.
    """
    within, between = _mean_cosines(vectors, classes)
    return within - between


def class_distance_ratio(vectors: Tensor, classes: Tensor) -> Tensor:
    r"""
    Mean cosine distance between texts of different classes over that within classes.

    .. math::
        \frac{1 - \mathrm{mean}_i\; b_i}{1 - \mathrm{mean}_i\; w_i}

    with the mean cosine :math:`w_i` of text :math:`i` to the other texts of its class,
    without texts that are alone in their class, and :math:`b_i` to those of other
    classes.

    Args:
        vectors (Tensor): Shape (texts, dim). A zero vector has cosine 0 with all.
        classes (Tensor): Explained classes, shape (texts,).

    Returns:
        *Tensor*: Shape (), 0 or more; 1 if the classes do not differ, infinity if each
        class has a single direction. NaN if there is only one class, or no class has
        two texts.

    Raises:
        ValueError: On shapes that do not agree, or classes that are not whole numbers.
    """
    within, between = _mean_cosines(vectors, classes)
    distance_within = 1 - within.nanmean()
    # A difference of rounding errors is not a distance.
    distance_within = distance_within.masked_fill(distance_within < 1e-12, 0)
    return (1 - between.mean()) / distance_within


def _sklearn_metrics(what: str) -> ModuleType:
    found: ModuleType = require("sklearn.metrics", what, "compare", "scikit-learn")
    return found


def _can_cluster(classes: Tensor) -> bool:
    """What scikit-learn asks for: 2 classes or more, and fewer than texts."""
    return 2 <= len(classes.unique()) < len(classes)


def silhouette(vectors: Tensor, classes: Tensor) -> Tensor:
    r"""
    Silhouette of each text's vector with cosine distance (Rousseeuw 1987), as
    ``sklearn.metrics.silhouette_samples`` computes it.

    Args:
        vectors (Tensor): Shape (texts, dim).
        classes (Tensor): Explained classes, shape (texts,).

    Returns:
        *Tensor*: Shape (texts,), from -1 to 1; 0 for a text alone in its class; NaN if
        there is only one class, or no class has two texts.

    Raises:
        ValueError: On shapes that do not agree, or classes that are not whole numbers.
        ImportError: Without scikit-learn (extra ``compare``).
    """
    _check(vectors, classes)
    metrics = _sklearn_metrics("silhouette")
    unit = _unit(vectors)
    if not _can_cluster(classes):
        return torch.full_like(unit[:, 0], torch.nan)
    values = metrics.silhouette_samples(
        unit.cpu().numpy(), classes.cpu().numpy(), metric="cosine"
    )
    return torch.as_tensor(values).to(unit)


def davies_bouldin(vectors: Tensor, classes: Tensor) -> Tensor:
    r"""
    Davies–Bouldin index of the vectors, scaled to length 1 (Davies and Bouldin 1979),
    as ``sklearn.metrics.davies_bouldin_score`` computes it.

    Args:
        vectors (Tensor): Shape (texts, dim).
        classes (Tensor): Explained classes, shape (texts,).

    Returns:
        *Tensor*: Shape (), 0 or more, lower is better; NaN if there is only one class,
        or no class has two texts.

    Raises:
        ValueError: On shapes that do not agree, or classes that are not whole numbers.
        ImportError: Without scikit-learn (extra ``compare``).
    """
    _check(vectors, classes)
    metrics = _sklearn_metrics("davies_bouldin")
    unit = _unit(vectors)
    if not _can_cluster(classes):
        return unit.new_tensor(torch.nan)
    return unit.new_tensor(
        metrics.davies_bouldin_score(unit.cpu().numpy(), classes.cpu().numpy())
    )
