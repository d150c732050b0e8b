"""``python -m captum_attngrad``: the ``captum-attngrad`` command."""

import sys

from captum_attngrad.cli import main

if __name__ == "__main__":
    sys.exit(main())
