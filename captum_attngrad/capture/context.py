"""Record a model's own calls, without an attribution."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.nn import Module

from captum_attngrad.capture._interventions import Intervention
from captum_attngrad.capture._proof.layouts import layouts_of
from captum_attngrad.capture.options import CaptureOptions
from captum_attngrad.capture.record import AttentionRecord
from captum_attngrad.capture.recorder import Recorder


class capture_attention:  # noqa: N801 (a context manager, named as torch's own)
    r"""
    Context manager that records the attention calls of a model or of some layers.

    It sees ``F.scaled_dot_product_attention``, ``nn.MultiheadAttention`` (and so
    ``nn.Transformer`` and its layers) and attention that is written out with a
    softmax, in whatever module they happen. Nothing is recorded outside the chosen
    layers. Everything is as before when the block is left, also by an exception.
    Only the thread that entered the block is recorded, and the replicas of the model
    that it makes (``nn.DataParallel``). Other threads may run or record the same model
    meanwhile.

    Args:

        model (torch.nn.Module): the model that is going to run.
        layer (torch.nn.Module or list of torch.nn.Module, optional): record only
                    what happens inside these modules, at any depth.
                    Default: the whole model
        batch_size (int, optional): number of examples. Needed only to read layouts
                    that fold heads into the batch, and only if the first tensor
                    given to the model has another first dimension.
                    Default: the first dimension of the first tensor that the model
                    is called with

    Returns (on entering):
        :class:`AttentionRecord`, filled when the block is left.

    Examples::

        >>> with capture_attention(model) as record:
        ...     logits = model(input_ids)
        >>> record.compute_gradients(logits[:, 1])
        >>> record[0].weights().shape      # (batch, heads, queries, keys)
        >>> record[0].gradient().shape     # the same
    """

    def __init__(
        self,
        model: Module,
        layer: Module | Sequence[Module] | None = None,
        batch_size: int | None = None,
    ) -> None:
        layers = [model] if layer is None else layer
        layers = [layers] if isinstance(layers, Module) else list(layers)
        self._batch_size = batch_size
        self._recorder = Recorder(layers, model=model)

    def __enter__(self) -> AttentionRecord:
        self._recorder.__enter__()
        return self._recorder.record

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recorder.__exit__(kind, error, traceback)
        if error is None:
            finish_with_model(self._recorder, self._batch_size)


def finish_with_model(recorder: Recorder, batch_size: int | None) -> AttentionRecord:
    """Finish a recording of a model's own call, and run it again to prove layouts."""
    record = recorder.finish()
    calls = record.replicas[0] if record.replicas else []
    if not calls:
        return record
    args, kwargs = recorder.called_with or ((), {})
    recorder.called_with = None
    given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
    first = next(
        (n for n, v in given.items() if isinstance(v, Tensor) and v.dim()), None
    )
    examples = batch_size
    if examples is None:
        examples = 1 if first is None else len(given[first])
    model, layers = recorder.model, recorder.layers
    numbers = [
        name
        for name, value in given.items()
        if name != first and _holds_examples(name, value, examples)
    ]
    others = {n: v for n, v in given.items() if n != first and n not in numbers}

    def run(arguments: tuple[Any, ...], intervention: Intervention) -> None:
        names = [first, *numbers, *others]
        named = dict(zip(names, arguments, strict=True))
        if turned:
            named[first] = arguments[0].transpose(0, 1)
        for name, value in given.items():
            if value is given[first]:  # self-attention called as module(x, x, x)
                named[name] = named[first]
        options = CaptureOptions(allow_dropout=True, intervention=intervention)
        again = Recorder(layers, model=model, options=options)
        assert model is not None
        with again:
            model(
                *(named[i] for i in range(len(args))),
                **{n: v for n, v in named.items() if isinstance(n, str)},
            )

    inputs: tuple[Any, ...] = () if first is None else (given[first],)
    inputs += tuple(given[name] for name in numbers)
    # Only with batch_size is it known that the examples are in the second dimension.
    turned = bool(inputs) and len(inputs[0]) != examples
    if turned and inputs[0].shape[1:2] == (examples,):
        inputs = (inputs[0].transpose(0, 1), *inputs[1:])
    verdicts = layouts_of(
        calls,
        model,
        run if inputs else None,
        inputs,
        tuple(others.values()),
        batch=examples,
        conventional=True,
    )
    record.arrange(verdicts)
    return record


def _holds_examples(name: Any, value: Any, examples: int) -> bool:
    """Whether an argument is an input of numbers, such as images, and not a mask."""
    floats = isinstance(value, Tensor) and value.is_floating_point()
    if not floats or value.dim() < 3 or len(value) != examples or "mask" in str(name):
        return False
    return bool(value.isfinite().all()) and bool((value > 0).any())
