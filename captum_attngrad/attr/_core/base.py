"""What the attention attributions have in common."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

from captum.attr import GradientAttribution, LayerAttribution
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.heads import Heads, checked_heads
from captum_attngrad.attr._core.layer_calls import LayerCalls, layer_calls, with_heads
from captum_attngrad.attr._core.reductions import PairScores
from captum_attngrad.attr._core.run import Runner
from captum_attngrad.attr._core.target import LossFunction
from captum_attngrad.capture.record import AttentionRecord

if TYPE_CHECKING:
    from typing_extensions import Self


class AttentionAttribution(LayerAttribution):
    """Base of all attributions here: which layers, and which heads."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        heads: Heads = None,
    ) -> None:
        if layer is None and not isinstance(forward_func, Module):
            name = getattr(forward_func, "__name__", type(forward_func).__name__)
            raise ValueError(
                f"layer is None, and forward_func ({name}) is not a torch.nn.Module, "
                "so its attention layers cannot be found. Pass the model itself as "
                "forward_func, or the attention modules as layer."
            )
        LayerAttribution.__init__(
            self,
            forward_func,
            layer,  # type: ignore[type-var]  # Captum knows no None here
            device_ids,
        )
        self._heads = checked_heads(heads)

    def _layers(self) -> list[Module]:
        """The layers whose attention is recorded."""
        if self.layer is None:
            model: Any = self.forward_func
            return [model]
        layers = self.layer if isinstance(self.layer, (list, tuple)) else [self.layer]
        if not layers:
            raise ValueError("layer is an empty list: pass the attention modules.")
        return list(layers)

    def _runner(self, **options: Any) -> Runner:
        """What runs the model; ``options`` are those of :class:`Runner`."""
        options = {"needs_gradients": False, **options}
        return Runner(self.forward_func, self._layers(), self.device_ids, **options)

    def _layer_calls(self, record: AttentionRecord) -> list[LayerCalls]:
        """The calls of each attention module, with its chosen heads."""
        return with_heads(layer_calls(record), self._heads)


class AttentionGradientAttribution(AttentionAttribution, GradientAttribution):
    """Base of the attributions that are built on the gradient of attention weights."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        heads: Heads = None,
        loss_func: LossFunction | None = None,
    ) -> None:
        AttentionAttribution.__init__(
            self, forward_func, layer, device_ids, heads=heads
        )
        GradientAttribution.__init__(self, forward_func)
        if loss_func is not None and not callable(loss_func):
            raise TypeError(
                f"loss_func={loss_func!r:.80} ({type(loss_func).__name__}) cannot be "
                "called: expected None, or a function of the output and the target."
            )
        self.loss_func = loss_func

    def with_loss_func(self, loss_func: LossFunction | None) -> Self:
        """The same attribution of minus this loss, or of ``output[target]`` for
        None."""
        changed = copy(self)
        changed.loss_func = loss_func
        return changed

    def compute_convergence_delta(self, *_: Any, **__: Any) -> Tensor:
        """
        Not for every attribution: see ``has_convergence_delta()``.

        Raises:
            NotImplementedError: where the scores do not sum to a difference of
                outputs. Captum would compare their sum with the outputs at two points
                that play no part in them.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no convergence delta, since its scores do not "
            "sum to a difference of outputs (has_convergence_delta() is False). "
            "IntegratedAttentionGradient and JointIntegratedGradients have one."
        )

    def _runner(self, **options: Any) -> Runner:
        chosen = {
            "loss_func": self.loss_func,
            "needs_gradients": True,
            "needs_every_layer": self.layer is not None,
        }
        return super()._runner(**{**chosen, **options})


class PairScoresAttribution(AttentionGradientAttribution):
    """Base of the attributions whose pairs of queries and keys are scored by the
    gradient, or by its product with the attention weights."""

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: Module | list[Module] | None = None,
        device_ids: list[int] | None = None,
        *,
        multiply_by_attention: bool = False,
        center: bool = False,
        positive_only: bool = False,
        heads: Heads = None,
        loss_func: LossFunction | None = None,
    ) -> None:
        super().__init__(
            forward_func, layer, device_ids, heads=heads, loss_func=loss_func
        )
        self._scores = PairScores(multiply_by_attention, center, positive_only)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the gradient is multiplied by the attention weights."""
        return self._scores.multiply
