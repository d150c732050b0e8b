"""The result of a verification, and how it prints."""

from __future__ import annotations

from dataclasses import dataclass

from captum_attngrad.capture.keys import KeyStatus

# Largest relative error of a gradient, against a finite difference in the same dtype.
TOLERANCES = {"float64": 1e-4, "float32": 1e-2, "bfloat16": 0.3, "float16": 0.1}


@dataclass(frozen=True)
class LayerVerification:
    r"""
    What was found about the attention of one module.

    Attributes:
        name (str): the module's name in the model.
        kind (str): ``"scaled_dot_product_attention"``, ``"softmax"`` or
            ``"attention kernel"``.
        layout (str): batch x heads x queries x keys of its first call.
        calls (int): number of attention calls in one forward pass.
        proved_by (str): how the layout is known.
        keys (KeyStatus): what the keys stand for.
        relative_error (float or None): of the gradient, against a finite difference;
            None where the output does not depend on the layer.
        problem (str): what keeps the layer from being verified; empty if nothing does.
    """

    name: str
    kind: str
    layout: str
    calls: int
    proved_by: str
    keys: KeyStatus
    relative_error: float | None
    problem: str = ""


@dataclass(frozen=True)
class Verification:
    r"""
    What :func:`verify` found. Prints as a table; true if everything is exact.

    Attributes:
        layers (tuple of LayerVerification): the attention modules, as they run.
        lost (tuple): softmaxes that weigh values after an operation that cannot be
            followed: (layer, operation).
        independent (bool or None): whether the examples of a batch were proved not to
            influence each other; None where the model takes one example only.
        vanished (bool): whether all attention gradients are so small against the output
            that their differences mean nothing (a saturated output).
        problems (tuple of str): what kept the model from being verified.
        dtype (str): in which finite differences were taken.
        tolerance (float): the largest relative error that counts as exact in it.
    """

    layers: tuple[LayerVerification, ...]
    lost: tuple[tuple[str, str], ...]
    independent: bool | None
    vanished: bool
    problems: tuple[str, ...]
    dtype: str
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether all attention was seen, and every gradient is exact and not 0."""
        return (
            bool(self.layers)
            and not self.lost
            and not self.problems
            and not self.vanished
            and all(self.is_exact(layer) for layer in self.layers)
        )

    def is_exact(self, layer: LayerVerification) -> bool:
        """Whether the gradient of one layer is exact."""
        if layer.problem:
            return False
        return layer.relative_error is None or layer.relative_error <= self.tolerance

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        rows = [_HEADER, *map(self._row, self.layers)] if self.layers else []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if lines:
            lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([*lines, *self._remarks()])

    def _row(self, layer: LayerVerification) -> tuple[str, ...]:
        error = "not on the path"
        if layer.relative_error is not None:
            error = f"{layer.relative_error:.1e}"
        return (
            "" if self.is_exact(layer) else "!",
            layer.name or "(the model itself)",
            layer.kind,
            layer.layout,
            str(layer.calls),
            layer.proved_by,
            layer.keys.value,
            error,
        )

    def _remarks(self) -> list[str]:
        lines = [f"problem: {problem}" for problem in self.problems]
        lines += [
            f"problem: layer {layer.name!r}: {layer.problem}"
            for layer in self.layers
            if layer.problem
        ]
        lines += [
            f"lost: a softmax of layer {layer or '(the model itself)'!r} weighs values "
            f"after the operation {operation!r}, which cannot be followed"
            for layer, operation in self.lost
        ]
        if not self.layers and not self.problems:
            lines.append("problem: no attention was found")
        unfit = {KeyStatus.OTHER, KeyStatus.APART}
        for layer in self.layers:
            if layer.keys in unfit:
                lines.append(
                    f"note: layer {layer.name!r} has no score for each token "
                    f"({layer.keys.value}); LayerAttentionGradient returns its maps"
                )
        if self.independent is None:
            lines.append("note: the model takes one example at a time")
        if self.vanished:
            lines.append(
                "problem: all scores have vanished; explain a logit or log-odds "
                "instead of a saturated output"
            )
        verdict = "exact" if self.ok else "not verified"
        lines.append(
            f"{verdict} (finite differences in {self.dtype}, tolerance "
            f"{self.tolerance:g})"
        )
        return lines


_HEADER = (
    "",
    "layer",
    "kind",
    "batch x heads x queries x keys",
    "calls",
    "proved by",
    "keys",
    "relative error",
)
