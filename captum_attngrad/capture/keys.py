"""What the keys of an attention call stand for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class KeyStatus(Enum):
    """How the keys of a call relate to the tokens of the input."""

    UNKNOWN = "not proved"
    TOKENS = "tokens"  # key k depends on token k and on no other
    MIXED = "tokens, mixed before attention"  # on token k, and on others
    FEATURES = "features of the input"  # the input has no tokens: patches, frames
    CONSTANT = "independent of inputs"  # another sequence, or learned
    OTHER = "not the tokens"  # pooled, shifted or compressed
    APART = "windows or blocks"  # heads of one call have different keys


@dataclass(frozen=True)
class Keys:
    """What was proved about the keys of a call.

    Attributes:
        status (KeyStatus): how they relate to the tokens of the input.
        group (int): calls with the same number have the same keys, in the same order.
        proved_by (str): how the layout of the call is known.
    """

    status: KeyStatus = KeyStatus.UNKNOWN
    group: int = 0
    proved_by: str = ""
