r"""The registry of the explanation methods that can be compared, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from captum.attr import Attribution
from torch import Tensor

from captum_attngrad._extras import missing
from captum_attngrad.evaluation.captum_methods import Baselines, run_captum
from captum_attngrad.text import TextBatch, TextModel

#: Maps a model, a batch and the explained classes (batch,) to scores (batch, tokens).
MethodFunction = Callable[[TextModel, TextBatch, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    r"""
    An explanation method with a name.

    Args:
        name (str): Unique name, as used in tables and on the command line.
        function (Callable): Maps (:class:`TextModel`, :class:`TextBatch`, target) to
            scores (batch, tokens); positive supports the target class. ``target`` is an
            int64 tensor (batch,). Scores at positions that are not attributable are
            ignored.
        description (str): One line for the report: what is computed, with which
            settings.
        requires (tuple of str, optional): Modules that the method imports, from the
            extra ``compare``.
            Default: ()
        default (bool, optional): Whether it is compared when no methods are named.
            Default: True

    Examples::

        >>> def length(text_model, batch, target):
        ...     words = [[float(len(t)) for t in tokens] for tokens in batch.tokens]
        ...     return torch.nn.utils.rnn.pad_sequence(
        ...         [torch.tensor(w) for w in words], batch_first=True
        ...     )
        >>> register_method(Method("length", length, "number of letters"))
    """

    name: str
    function: MethodFunction
    description: str
    requires: tuple[str, ...] = ()
    default: bool = True


#: A method, its name, one of Captum's attributions or a function.
MethodLike = str | Method | Attribution | MethodFunction


_REGISTRY: dict[str, Method] = {}


def register_method(method: Method) -> Method:
    r"""
    Makes a method available by its name.

    Args:
        method (Method): The method.

    Returns:
        *Method*: The same method.

    Raises:
        ValueError: If the name is taken.
    """
    if method.name in _REGISTRY:
        raise ValueError(
            f"A method named {method.name!r} is registered already; choose another "
            "name."
        )
    _REGISTRY[method.name] = method
    return method


def available_methods() -> tuple[str, ...]:
    """Names of the registered methods, in the order of their registration."""
    return tuple(_REGISTRY)


def captum_method(
    attribution: Attribution,
    name: str | None = None,
    *,
    baselines: Baselines = "replacement",
    **arguments: Any,
) -> Method:
    r"""
    One of Captum's attributions as a method.

    What it explains is always the class's probability of the text model it is run on,
    regardless of its own ``forward_func``. Attributions of a layer get token ids,
    gradients of the input get embeddings and are summed over their dimension, and
    perturbations get the attributable tokens of one text at a time.

    Args:
        attribution (Attribution): An instance.
        name (str, optional): Unique name; None takes the name of its class.
            Default: None
        baselines (str): ``"replacement"`` (every attributable token replaced) or
            ``"zero"`` (embeddings of zeros), where the attribution takes a baseline.
            Default: "replacement"
        **arguments (Any): Further arguments of its ``attribute``.

    Returns:
        *Method*

    Raises:
        TypeError: If ``attribution`` is not an instance of one of Captum's classes.

    Examples::

        >>> register_method(captum_method(Saliency(model), abs=False))
        >>> compare(text_model, texts, methods=["random", Saliency(model)])
    """
    if not isinstance(attribution, Attribution):
        raise TypeError(
            f"attribution is {attribution!r:.80}; expected an instance of one of "
            "Captum's attributions, such as Saliency(model)."
        )
    kind = type(attribution).__name__
    settings = [f"{key}={value!r}" for key, value in sorted(arguments.items())]
    if baselines != "replacement":
        settings.append(f"baselines={baselines!r}")
    return Method(
        kind if name is None else name,
        partial(run_captum, attribution, baselines=baselines, **arguments),
        f"Captum's {_kinds(attribution)}({', '.join(settings)})",
    )


def _kinds(attribution: Attribution) -> str:
    """Its class, and around which other it is."""
    inner = getattr(attribution, "attribution_method", None)
    kind = type(attribution).__name__
    return kind if inner is None else f"{kind} of {_kinds(inner)}"


def _as_method(given: MethodLike) -> Method:
    if isinstance(given, Method):
        return given
    if isinstance(given, Attribution):
        return captum_method(given)
    if isinstance(given, str):
        if given not in _REGISTRY:
            raise ValueError(
                f"There is no method named {given!r}; expected one of: "
                f"{', '.join(available_methods())}."
            )
        return _REGISTRY[given]
    if isinstance(given, type) or not callable(given):
        raise TypeError(
            f"methods holds {given!r:.80}; expected a name, a Method, an instance of "
            "one of Captum's attributions, or a function (text_model, batch, target)."
        )
    name = getattr(given, "__name__", type(given).__name__)
    return Method(name, given, (given.__doc__ or name).strip().splitlines()[0])


def resolve_methods(methods: Sequence[MethodLike] | None) -> tuple[Method, ...]:
    r"""
    Looks methods up by name and checks that what they need is installed.

    Args:
        methods (Sequence, optional): Names, methods, Captum's attributions or functions
            (text_model, batch, target); None for those that are registered to be
            compared by default.

    Returns:
        *tuple of Method*

    Raises:
        ValueError: If a name is not registered or occurs twice, or there is none.
        TypeError: If an entry is none of these.
        ImportError: If a module that a method needs is not installed.
    """
    if isinstance(methods, str):
        raise TypeError(f"methods is the string {methods!r}; expected a list of names.")
    if methods is None:
        methods = [method for method in _REGISTRY.values() if method.default]
    chosen: list[Method] = []
    for given in methods:
        method = _as_method(given)
        if method.name in (other.name for other in chosen):
            raise ValueError(f"The method {method.name!r} was given twice.")
        for module in method.requires:
            if find_spec(module) is None:
                raise missing(f"The method {method.name!r}", module, "compare")
        chosen.append(method)
    if not chosen:
        raise ValueError("methods is empty; expected at least one method.")
    return tuple(chosen)
