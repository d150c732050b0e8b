"""Run and record attention that never shows its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_attngrad._transformers import REGISTRY_ARGUMENTS
from captum_attngrad.capture._anchors import anchored, exclusive, gradient_source
from captum_attngrad.capture._fused.interfaces import flex_kernel, registry_kernel
from captum_attngrad.capture._fused.kernels import Kernel, KernelCall
from captum_attngrad.capture._fused.unused_rows import attend_skipping_unused
from captum_attngrad.capture._sites import FusedSite, fused_site
from captum_attngrad.capture._thread_recording import ThreadRecording
from captum_attngrad.capture.calls import FusedCall

# What a kernel is, which may be known only after it has run; None: do not record it.
Describe = Callable[[], Kernel | None]


class FusedAttention:
    """The calls of ``scaled_dot_product_attention`` and of other kernels."""

    def __init__(self, recording: ThreadRecording) -> None:
        self._recording = recording

    def scaled_dot_product(self, *args: Any, **kwargs: Any) -> Tensor:
        recording = self._recording
        site = fused_site(recording.next_site(), *args, **kwargs)
        if site is None:
            raise NotImplementedError(
                f"Layer {recording.layer!r} calls scaled_dot_product_attention on "
                "nested tensors, which cannot be recorded. Pass padded tensors and a "
                "mask (nn.TransformerEncoder: enable_nested_tensor=False)."
            )
        if site.dropout > 0:
            recording.refuse_dropout()
        return self._run(site)

    def flex(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        score_mod: Any,
        block_mask: tuple[Any, ...],
        scale: float,
        *rest: Any,
    ) -> Any:
        """PyTorch's flex attention."""

        def run(value: Tensor) -> tuple[Tensor, Any]:
            output, *others = func(
                query, key, value, score_mod, block_mask, scale, *rest
            )
            return output, others

        def describe() -> Kernel:
            return flex_kernel(score_mod, block_mask[-1])

        output, others = self._kernel(query, key, value, scale, run, describe)
        return (output, *others)

    def registered(
        self,
        name: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """A function of transformers' attention registry."""
        recording = self._recording
        given = dict(zip(REGISTRY_ARGUMENTS, args, strict=False)) | kwargs
        before = recording.calls
        recorded = False

        def run(value: Tensor) -> tuple[Tensor, Any]:
            nonlocal recorded
            if "value" in kwargs:
                result = function(*args, **(kwargs | {"value": value}))
            else:
                result = function(*args[:3], value, *args[4:], **kwargs)
            recorded = recording.calls > before
            return result[0].transpose(1, 2), result

        def describe() -> Kernel | None:
            if recorded:
                return None
            if given.get("dropout", 0) > 0:
                recording.refuse_dropout()
            return registry_kernel(name, recording.layer, given)

        query, key, value = (given[name] for name in ("query", "key", "value"))
        output, result = self._kernel(
            query, key, value, given.get("scaling"), run, describe
        )
        if recorded:  # it is made of operations that have been recorded
            if given.get("s_aux") is not None and name == "flex_attention":
                raise NotImplementedError(
                    f"Layer {recording.layer!r} adds an attention sink after flex "
                    "attention, so its weights are unknown. Use "
                    "model.set_attn_implementation('eager') for the explanation."
                )
            return result
        return (output.transpose(1, 2), *result[1:])

    def _kernel(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None,
        run: Callable[[Tensor], tuple[Tensor, Any]],
        describe: Describe,
    ) -> tuple[Tensor, Any]:
        """The output of a kernel whose inside is not seen, and what else it returns."""
        others: Any = None

        def attend(value: Tensor) -> Tensor:
            nonlocal others
            output, others = run(value)
            return output

        index = self._recording.next_site()
        site = FusedSite(index, query, key, value, scale=scale, kernel=attend)
        output = self._run(site, describe)
        if others is None:  # an intervention gave the output instead
            attend(value)
            describe()
        return output, others

    def _run(self, site: FusedSite, describe: Describe | None = None) -> Tensor:
        recording = self._recording
        options, intervention = recording.options, recording.intervention
        plain, site = site, intervention.prepared(site)
        replaced = intervention.output(site)
        if replaced is not None:
            return replaced
        weighed = intervention.values(site, site.value)
        scaled = weighed is not site.value
        value_sources: tuple[Any, ...] = ()
        if options.value_gradients and torch.is_grad_enabled():
            # A tensor that only this call uses: its gradient is dv *through* it.
            weighed = exclusive(weighed)
            value_sources = (gradient_source(weighed),)
        skips = options.skip_unused_rows and site is plain
        if skips and site.kernel is None and site.dropout == 0:
            output = attend_skipping_unused(site, weighed)
        else:
            output = site.attend(weighed)
        kernel = None if describe is None else describe()
        if describe is not None and kernel is None:
            return output
        returned = output
        sources: tuple[Any, ...] = ()
        if torch.is_grad_enabled():
            if kernel is not None:
                self._check_backward(kernel, weighed, output)
            output, returned = anchored(output)
            sources = (gradient_source(output), *value_sources)
        if kernel is None:
            call = FusedCall(*recording.where(), site, output, sources)
        else:
            call = KernelCall(
                *recording.where(), site, output, sources, kernel, check=not scaled
            )
        recording.add(call)
        return returned

    def _check_backward(self, kernel: Kernel, value: Tensor, output: Tensor) -> None:
        if value.requires_grad and not output.requires_grad:
            raise RuntimeError(
                f"The attention kernel {kernel.name!r} of layer "
                f"{self._recording.layer!r} has no backward pass, so nothing that "
                "comes before it can be explained. Use another attention "
                "implementation (Hugging Face: model.set_attn_implementation('sdpa'))."
            )
