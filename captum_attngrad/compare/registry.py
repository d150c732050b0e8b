r"""The registry of the explanation methods that can be compared, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from torch import Tensor

from captum_attngrad.compare.text_model import TextBatch, TextModel

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
        requires (tuple of str, optional): Modules that must be importable and come with
            the extra ``compare``.
            Default: ()

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


def resolve_methods(
    methods: "Sequence[str | Method] | None",
) -> tuple[Method, ...]:
    r"""
    Looks methods up by name and checks that what they need is installed.

    Args:
        methods (Sequence of str or Method, optional): Names or methods; None for all
            that are registered.

    Returns:
        *tuple of Method*

    Raises:
        ValueError: If a name is not registered or occurs twice, or there is none.
        ImportError: If a module that a method needs is not installed.
    """
    chosen: list[Method] = []
    for method in available_methods() if methods is None else methods:
        if isinstance(method, str):
            if method not in _REGISTRY:
                raise ValueError(
                    f"There is no method named {method!r}; expected one of: "
                    f"{', '.join(available_methods())}."
                )
            method = _REGISTRY[method]
        if method.name in (other.name for other in chosen):
            raise ValueError(f"The method {method.name!r} was given twice.")
        for module in method.requires:
            if find_spec(module) is None:
                raise ImportError(
                    f"The method {method.name!r} needs {module}, which is not "
                    "installed. Run: pip install 'captum-attngrad[compare]'"
                )
        chosen.append(method)
    if not chosen:
        raise ValueError("methods is empty; expected at least one method.")
    return tuple(chosen)
