r"""What a command raises when its arguments are wrong."""


class UsageError(Exception):
    """The arguments fit the parser and yet cannot be meant; the message is one line."""
