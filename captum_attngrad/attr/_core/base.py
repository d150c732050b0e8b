"""What the attention attributions have in common."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

from captum.attr import GradientAttribution, LayerAttribution
from torch import Tensor
from torch.nn import Module

from captum_attngrad.attr._core.layer_calls import LayerCalls, layer_calls, with_heads
from captum_attngrad.attr._core.reductions import PairScores
from captum_attngrad.attr._core.run import Runner
from captum_attngrad.attr._core.selection import Heads, checked_heads
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
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model, or any function
                        that runs it, as for :class:`AttentionGradient`.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The modules
                        whose attention is used, as for :class:`AttentionGradient`.
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then
            device_ids (list[int], optional): Device ID list, necessary only if
                        forward_func applies a DataParallel model.
                        Default: None
            heads (list[int] or Tensor, optional): The heads that are used: indices,
                        or a boolean mask, as for :class:`AttentionGradient`.
                        Default: None, all heads
        """
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

    def runner(self, **options: Any) -> Runner:
        """What runs the model; ``options`` are those of :class:`Runner`."""
        options = {"needs_gradients": False, **options}
        return Runner(self.forward_func, self._layers(), self.device_ids, **options)

    def layers_of(self, record: AttentionRecord) -> list[LayerCalls]:
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

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: the gradient is multiplied by the attention weights, or by what changes
        between two inputs."""
        return True

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

    def runner(self, **options: Any) -> Runner:
        chosen = {
            "loss_func": self.loss_func,
            "needs_gradients": True,
            "needs_every_layer": self.layer is not None,
        }
        return super().runner(**{**chosen, **options})


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
        r"""
        Args:

            forward_func (Callable or torch.nn.Module): The model, or any function
                        that runs it. Hugging Face models may be passed as they are:
                        of an output object, ``.logits`` is explained.
            layer (torch.nn.Module or list of torch.nn.Module, optional): The modules
                        whose attention is explained. They may contain the attention
                        at any depth. :func:`find_attention_layers` lists what there
                        is.
                        Default: None, every attention layer in ``forward_func``,
                        which must be a Module then
            device_ids (list[int], optional): Device ID list, necessary only if
                        forward_func applies a DataParallel model. If forward_func is
                        given as the DataParallel model itself, then it is not
                        necessary to provide this argument.
                        Default: None
            multiply_by_attention (bool, optional): Multiply the gradient by the
                        attention weights, :math:`A \odot G`.
                        Default: False
            center (bool, optional): Subtract the attention-weighted mean of its row
                        from the gradient, :math:`G_{qk} - \sum_j A_{qj} G_{qj}`. The
                        weights of a row sum to one, so a constant added to a row of
                        the gradient means nothing; the centered gradient is free of
                        it, and does not change when a constant moves between the
                        values and the output bias. With ``multiply_by_attention``
                        this is the gradient with respect to the scores before the
                        softmax.
                        Default: False
            positive_only (bool, optional): Set the negative scores of single
                        (query, key) pairs to 0 before they are summed, as Grad-SAM
                        (Barkan et al. 2021) does with ``multiply_by_attention``.
                        What opposes the output is lost, and the sum over the queries
                        no longer has a closed form: it is taken in blocks of queries,
                        in bounded memory and in time that grows with queries x keys.
                        Default: False
            heads (list[int] or Tensor, optional): The heads that count: indices, for
                        every layer alike, or a boolean mask, ``(heads,)`` or
                        ``(layers, heads)``, with the layers in the order of
                        ``layer`` (within one module, as they run).
                        Default: None, all heads
            loss_func (Callable, optional): ``loss_func(output, target)``, one number
                        or one number for each example, such as
                        ``torch.nn.functional.cross_entropy``. If given, minus the
                        loss is explained instead of ``output[target]``. A loss that is
                        reduced to one number is computed for each example separately.
                        Default: None
        """
        super().__init__(
            forward_func, layer, device_ids, heads=heads, loss_func=loss_func
        )
        self.pair_scores = PairScores(multiply_by_attention, center, positive_only)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the gradient is multiplied by the attention weights."""
        return self.pair_scores.multiply
