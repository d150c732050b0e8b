"""What was recorded of one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from captum_attngrad.capture._proof.layouts import Verdict
from captum_attngrad.capture.calls import AttentionCall


class AttentionRecord:
    r"""
    The attention calls of one forward pass, in the order in which they were made.

    Attributes:
        calls (list of AttentionCall): all calls. Where replicas of a model ran in
            threads of their own, the calls of one replica follow those of another.
        replicas (list of lists of AttentionCall): the same, one list per replica, in
            the order of their examples. One list for an ordinary model.
        lost (tuple): softmaxes that weigh values after an operation that cannot be
            followed: (layer, operation).
    """

    def __init__(self) -> None:
        self.replicas: list[list[AttentionCall]] = []
        self.lost: tuple[tuple[str, str], ...] = ()

    @property
    def calls(self) -> list[AttentionCall]:
        return [call for replica in self.replicas for call in replica]

    def __len__(self) -> int:
        return len(self.calls)

    def __iter__(self) -> Iterator[AttentionCall]:
        return iter(self.calls)

    def __getitem__(self, index: int) -> AttentionCall:
        return self.calls[index]

    def compute_gradients(
        self, score: Tensor, others: Sequence[Tensor] = ()
    ) -> list[Tensor | None]:
        r"""
        Compute the gradient of a score with respect to all recorded attention
        weights, in one backward pass. No ``.grad`` is touched.

        Args:
            score (Tensor): one number, or one number for each example; the examples
                must not depend on each other.
            others (sequence of Tensor, optional): further tensors to differentiate
                by, in the same backward pass.
                Default: none

        Returns:
            list of *Tensor* or None: the gradients with respect to ``others``; None
            where the score does not depend on one.

        Raises:
            RuntimeError: if the score depends on none of the recorded calls.
        """
        calls = [call for call in self.calls if call.sources]
        if not score.requires_grad or not calls:
            names = ", ".join(sorted({repr(call.layer) for call in self.calls}))
            raise RuntimeError(
                "The score does not depend on the recorded attention weights"
                f"{' of ' + names if names else ''}: they are not on the path to the "
                "output. Was something detached, or the forward pass run without "
                "gradients (torch.no_grad, an inference-only kernel)?"
            )
        sources = [source for call in calls for source in call.sources]
        found = iter(
            torch.autograd.grad(score.sum(), [*sources, *others], allow_unused=True)
        )
        for call in calls:
            call.set_gradients([next(found) for _ in call.sources])
        return list(found)

    def arrange(self, verdicts: Sequence[Verdict]) -> None:
        """Bring all calls into the layout (batch, heads, queries, keys)."""
        if len({len(calls) for calls in self.replicas}) > 1:
            raise RuntimeError(
                "The replicas of the model made different numbers of attention calls: "
                f"{[len(calls) for calls in self.replicas]}."
            )
        for calls in self.replicas:
            for call, verdict in zip(calls, verdicts, strict=True):
                call.arrange(*verdict.of_replica(call))
                call.keys_are = verdict.keys
