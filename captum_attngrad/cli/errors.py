r"""What a command raises when its arguments are wrong."""


class UsageError(Exception):
    """The arguments parse and yet are wrong; the message is one line."""
