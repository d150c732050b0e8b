"""Points on the path from no attention to full attention, and the batches they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_attngrad._captum import TargetType, integration_methods, integration_points
from captum_attngrad.attr._core.inputs import Inputs, number_of_examples, repeated
from captum_attngrad.attr._core.run import Runner
from captum_attngrad.attr._core.warning import warn
from captum_attngrad.attr._core.whole_numbers import whole_number
from captum_attngrad.capture._interventions import Scale
from captum_attngrad.capture._layout.layout import ExampleDimension
from captum_attngrad.capture._proof.layouts import example_dimension
from captum_attngrad.capture.record import AttentionRecord

Given = tuple[Inputs, TargetType, object | None]  # inputs, target, further arguments


class Point(NamedTuple):
    """A point on a path from no attention to full attention."""

    factor: float
    weight: float  # in the sum that approximates the integral
    call: int | None = None  # the one call that is scaled; None: all of them


def check_steps(n_steps: int, method: str) -> None:
    """
    Raises:
        ValueError: if there is no such method, or it needs more steps.
    """
    methods = integration_methods()
    if method not in methods:
        raise ValueError(
            f"method={method!r} is unknown: it is one of {', '.join(methods)}."
        )
    whole_number(
        "n_steps", n_steps, 1 if method == "gausslegendre" else 2, f"for {method}"
    )


def path_points(
    n_steps: int, method: str, calls: list[int] | None = None
) -> list[Point]:
    """The points of a path on which all calls are scaled together, or, if calls are
    given, of one path for each of them."""
    steps = integration_points(method, n_steps)
    scaled = [None] if calls is None else calls
    return [Point(*step, call) for call in scaled for step in steps]


class AttentionPath:
    """
    The path from no attention to full attention of one model on one input.

    Args:
        runner (Runner): runs the model.
        given (tuple): inputs, target and additional arguments.
        record (AttentionRecord): the attention calls of a run with full attention.
    """

    def __init__(self, runner: Runner, given: Given, record: AttentionRecord) -> None:
        self.runner = runner
        self.given = given
        self.calls = [call.site_index for call in record.replicas[0]]
        self._record = record
        self._examples = number_of_examples(given[0])

    def scale(self, points: list[Point]) -> Scale:
        """What multiplies the weights of each call at these points, all examples of a
        point together."""
        factors = {
            call: self._by_example(
                [p.factor if p.call in (None, call) else 1.0 for p in points]
            )
            for call in self.calls
        }
        where = self._example_dimensions if len(points) > 1 else None
        return Scale(factors, where or {})

    def weights(self, points: list[Point]) -> dict[int, Tensor]:
        """What the scores of each call count for at these points."""
        return {
            call: self._by_example(
                [p.weight if p.call in (None, call) else 0.0 for p in points]
            )
            for call in self.calls
        }

    def integrate(
        self,
        points: list[Point],
        at: Callable[[list[Point]], tuple[Tensor, ...]],
        internal_batch_size: int | None,
        description: str,
        show_progress: bool,
    ) -> tuple[Tensor, ...]:
        """The sums of what ``at`` returns for some points at a time."""
        chunks = list(self._chunks(points, internal_batch_size))
        totals: tuple[Tensor, ...] = ()
        for chunk in tqdm(chunks, desc=description, disable=not show_progress):
            found = at(chunk)
            totals = tuple(
                more if not totals else totals[i] + more.to(totals[i].device)
                for i, more in enumerate(found)
            )
        return totals

    def repeated(self, points: list[Point]) -> Given:
        """All examples once for each point."""
        return repeated(*self.given, len(points))

    def check_same_calls(self, record: AttentionRecord) -> None:
        """
        Raises:
            RuntimeError: if the model made other calls than with full attention.
        """
        for calls in record.replicas:
            if [call.site_index for call in calls] != self.calls:
                raise RuntimeError(
                    "The model made other attention calls when its attention was "
                    f"scaled ({len(calls)} in place of {len(self.calls)}, or in another"
                    " order), so that the steps do not belong together. Which attention"
                    " calls it makes must not depend on its weights, nor on the size "
                    "of the batch."
                )

    def _by_example(self, numbers: list[float]) -> Tensor:
        # Autograd keeps them, which it refuses to do with tensors of inference_mode.
        with torch.inference_mode(False):
            each = torch.tensor(numbers, dtype=torch.float64)
            # One number serves all, also the examples of a replica that sees some.
            alike = len(numbers) == 1
            return each if alike else each.repeat_interleave(self._examples)

    def _chunks(
        self, points: list[Point], internal_batch_size: int | None
    ) -> Iterator[list[Point]]:
        size = len(points)
        if internal_batch_size is not None:
            if internal_batch_size < self._examples:
                warn(
                    f"internal_batch_size={internal_batch_size} is less than the number"
                    f" of examples: {self._examples} rows go through the model at once."
                )
            size = max(1, internal_batch_size // max(1, self._examples))
        if len(points) > 1 and self._example_dimensions is None:
            size = 1
        for start in range(0, len(points), size):
            yield points[start : start + size]

    @cached_property
    def _example_dimensions(self) -> dict[int, ExampleDimension] | None:
        """Where each call has its examples, so that they can be scaled one by one.

        None where they cannot: replicas see some of the examples, and do not tell
        which; in some layouts examples cannot be told apart.
        """
        record = self._record
        if len(record.replicas) > 1:
            return None
        if record[0].batch_size == 1:
            # One example does not tell: look at two. Where they cannot be kept apart,
            # one point at a time is still exact.
            inputs, _, arguments = repeated(*self.given, 2)
            try:
                record = self.runner.record(inputs, arguments)
            except ValueError:
                return None
        try:
            return {call.site_index: example_dimension(call) for call in record}
        except NotImplementedError:
            return None
