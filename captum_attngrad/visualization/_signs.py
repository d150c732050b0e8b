"""How a sign is shown: colors, marks and numbers that go together."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

# Green for and red against, as in the text view. The red leans to purple and is the
# darker of the two, so that both stay apart in color-blind eyes and in gray.
POSITIVE = "#148f14"
NEGATIVE = "#861360"
INK = "#1b1b1b"
# In the order of an axis, from its negative end to its positive one.
MEANING = "− argues against      + supports"

# An odd number of colors has a middle one, for zero.
DIVERGING = LinearSegmentedColormap.from_list(
    "captum_attngrad", [NEGATIVE, "#ffffff", POSITIVE], N=511
)


def signed_number(value: float, peak: float) -> str:
    """A number with its sign, with three digits where it is the largest one."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(peak))
    if -4 <= exponent <= 4:
        text = f"{value:+.{max(0, 2 - exponent)}f}"
    else:
        text = f"{value:+.1e}"
    return text.replace("-", "−")


def say_all_zero(ax: Axes) -> None:
    ax.text(
        0.5,
        0.5,
        "all scores are 0",
        transform=ax.transAxes,
        ha="center",
        va="center",
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 3},
    )
