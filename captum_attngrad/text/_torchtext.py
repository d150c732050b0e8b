"""Importing torchtext, whose last release fits one version of torch."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch

from captum_attngrad._extras import how_to_install

_TOGETHER = (
    "Its last release, 0.18.0, is compiled for torch 2.3, which needs numpy below 2 "
    "and Python 3.10 to 3.12, in an environment of its own. "
    + how_to_install("torchtext")
)


def import_torchtext() -> ModuleType:
    r"""
    Import torchtext, or say which versions go together.

    With another torch than 2.3, ``import torchtext`` ends in the linker with an
    undefined symbol or a library that could not be loaded. Nothing else here
    imports torchtext: its tokenizers and vocabularies are used as they are,
    and :class:`WordTokenizer` and :class:`Vocab` take their place elsewhere.

    Returns:
        ModuleType:
        - The package ``torchtext``.

    Raises:

        ImportError: If torchtext is not installed or does not fit the installed torch.

    Examples::

        >>> torchtext = import_torchtext()
        >>> torchtext.disable_torchtext_deprecation_warning()
        >>> from torchtext.data.utils import get_tokenizer
    """
    try:
        return importlib.import_module("torchtext")
    except (ImportError, OSError) as error:  # the linker's errors are OSErrors
        try:
            found = version("torchtext")
        except PackageNotFoundError:
            raise ImportError(f"torchtext is not installed. {_TOGETHER}") from error
        raise ImportError(
            f"torchtext {found} cannot be imported beside torch {torch.__version__} "
            f"({type(error).__name__}: {str(error).strip():.200}). {_TOGETHER}"
        ) from error
