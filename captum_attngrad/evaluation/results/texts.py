r"""One explained text of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ExplainedText:
    r"""
    One text, the model's answer and the scores of each method.

    Args:
        tokens (tuple of str): Its tokens.
        predicted (int): The predicted class, which is the explained one.
        probability (float): The predicted class's probability.
        label (int, optional): True class; None if it was not given.
        scores (Mapping): Method name to the scores of the tokens, shape (tokens,); 0
            for tokens that are not attributable. Methods that failed are left out.
    """

    tokens: tuple[str, ...]
    predicted: int
    probability: float
    label: int | None
    scores: Mapping[str, npt.NDArray[np.float64]]
