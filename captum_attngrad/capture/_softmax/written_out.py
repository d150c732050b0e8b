"""Recognize attention that is written out: a softmax whose result weighs values.

A softmax is followed through what may stand between it and the values (dropout, a
cast, a reshape, a mask). It counts as attention once its own dimension is summed
away in a product with values: ``weights @ values``, ``einsum``, or
``(weights * values).sum(dim)``. The product says what the other dimensions are. A
classifier's output softmax is never multiplied by values; :meth:`Followed.excluded`
recognizes the router of a mixture of experts.

A softmax that weighs values only after an operation that is unknown here is reported
as lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from captum_attngrad.capture._softmax import operations as ops
from captum_attngrad.capture._softmax import passing, products
from captum_attngrad.capture._softmax.followed import Call, Followed
from captum_attngrad.capture._softmax.tracks import Softmax

Handler = Callable[[Followed, Call], None]

_DATA = getattr(torch.Tensor.data, "__get__")  # noqa: B009


def _nothing(followed: Followed, call: Call) -> None:
    pass


# A name that is in several sets belongs to the last of them.
_SEE: dict[str, Handler] = {
    name: handler
    for names, handler in (
        (ops.QUESTIONS, _nothing),
        (["topk"], passing.see_topk),
        (["__setitem__"], passing.see_written),
        (ops.RESHAPE | ops.SLICE, passing.see_shape),
        (ops.ELEMENTWISE_OF_SEVERAL, passing.see_elementwise_of_several),
        (ops.ELEMENTWISE, passing.see_elementwise),
        (ops.SUM, passing.see_sum),
        (ops.PRODUCT, products.see_product),
        (ops.MATMUL_ADD, products.see_matmul_add),
        (ops.REVERSED_MATMUL, products.see_reversed_matmul),
        (ops.MATMUL, products.see_matmul),
        (["einsum"], products.see_einsum),
    )
    for name in names
}
# Also where nothing is followed yet: what these return is.
_SEE_ALWAYS: dict[str, Handler] = {
    "linear": products.see_linear,
    "stack": passing.see_stack,
}


def see(
    followed: Followed,
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: Any,
) -> list[Softmax]:
    """Take note of one operation that has just run.

    Returns the softmaxes that it shows to be attention, or of which it shows that
    more entries weigh values than were known.
    """
    name = getattr(func, "__name__", "")
    handler = _SEE_ALWAYS.get(name)
    if handler is None:
        if not followed:
            return []
        handler = _SEE.get(name, passing.see_unknown)
        if name == "__get__":  # of a property
            if func in ops.PROPERTIES:
                handler = passing.see_shape
            elif func is _DATA:
                handler = passing.see_elementwise
    handler(followed, Call(name, func, args, kwargs, result))
    found, followed.found = followed.found, []
    return found
