r"""The ``captum-attngrad`` command."""

from captum_attngrad.cli.main import main

__all__ = ["main"]
