"""Look inside ``F.multi_head_attention_forward``.

Under a torch function mode, ``F.multi_head_attention_forward`` hands itself to the
mode before it does anything, so a mode that is active while it runs would be asked
again and again. The same code object, with that one question answered "no", runs
once and lets the mode see the calls inside, whichever torch version is installed.
"""

from __future__ import annotations

import types
from typing import Any

import torch.nn.functional as F


def _never(_: Any) -> bool:
    return False


def _opened() -> types.FunctionType:
    original = F.multi_head_attention_forward
    opened = types.FunctionType(
        original.__code__,
        {**F.__dict__, "has_torch_function": _never},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    opened.__kwdefaults__ = original.__kwdefaults__
    return opened


open_multi_head_attention_forward = _opened()
