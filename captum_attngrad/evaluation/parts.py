r"""What is kept of a batch, as arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_attngrad.evaluation.evaluate import BatchMeasures, Explained, Measured
from captum_attngrad.evaluation.store import text_array
from captum_attngrad.metrics.base import CorpusMetric, Metric
from captum_attngrad.text import TextBatch


def explained_part(found: Explained) -> dict[str, npt.NDArray[Any]]:
    """The scores, and what they took."""
    return {"scores": found.scores.cpu().numpy(), "cost": np.array(found.cost)}


def measured_part(measured: Measured) -> dict[str, npt.NDArray[Any]]:
    """What the metrics said."""
    arrays = {f"value/{k}": v.cpu().numpy() for k, v in measured.values.items()}
    arrays |= {
        f"vector/{k}": v.to(torch.float32).cpu().numpy()
        for k, v in measured.vectors.items()
    }
    assert measured.curve is not None
    arrays["curve"] = measured.curve.cpu().numpy()
    arrays["failures"] = text_array(measured.failures)
    return arrays


def texts_part(
    metrics: tuple[Metric, ...],
    measures: BatchMeasures,
    places: list[int],
    texts: TextBatch,
    probability: Tensor,
    target: Tensor,
) -> dict[str, npt.NDArray[Any]]:
    """What is kept of a batch whatever the method."""
    part: dict[str, npt.NDArray[Any]] = {
        "tokens": text_array(texts.tokens),
        "places": np.array(places),
        "target": target.cpu().numpy(),
        "probability": probability.cpu().numpy(),
    }
    ones = torch.ones(texts.input_ids.shape, device=texts.input_ids.device)
    for metric in metrics:
        if isinstance(metric, CorpusMetric):
            vectors = measures.vectors(metric, ones).to(torch.float32)
            part[f"uniform/{metric.vector}"] = vectors.cpu().numpy()
    return part
