"""What the attention sites of one thread have in common."""

from __future__ import annotations

from collections.abc import Callable

from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture.calls import AttentionCall
from captum_attngrad.capture.options import CaptureOptions


class ThreadRecording:
    """
    Numbers the sites of one thread and collects its calls.

    Args:
        add (Callable): takes each finished :class:`AttentionCall`.
        where (Callable): names the innermost module that is running, and says which of
            the recorded layers contain it.
        options (CaptureOptions): how the forward pass runs.

    Attributes:
        calls (int): how many have been recorded.
    """

    def __init__(
        self,
        add: Callable[[AttentionCall], None],
        where: Callable[[], tuple[str, tuple[int, ...]]],
        options: CaptureOptions,
    ) -> None:
        self.options = options
        self.intervention = options.intervention or Intervention()
        self.where = where
        self.calls = 0
        self._add = add
        self._sites = 0

    @property
    def layer(self) -> str:
        """The name of the module that is running."""
        return self.where()[0]

    def next_site(self) -> int:
        """Numbers the fused calls and softmaxes as they come, attention or not, so
        that one call has the same number in every forward pass."""
        self._sites += 1
        return self._sites - 1

    def add(self, call: AttentionCall) -> None:
        self.calls += 1
        self._add(call)

    def refuse_dropout(self) -> None:
        """
        Raises:
            RuntimeError: unless attention dropout is allowed.
        """
        if not self.options.allow_dropout:
            raise RuntimeError(
                f"Attention dropout is active in layer {self.layer!r}, so the "
                "attention weights that are explained would be random. Call "
                "model.eval() first."
            )
