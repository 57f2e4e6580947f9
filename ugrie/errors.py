"""The base class of errors about a user's input."""

from ugrie.text import one_line


class GivenError(ValueError):
    """An error in the user's input. The message, formatted by `one_line`, names what is wrong and the remedy."""

    def __init__(self, message: str):
        super().__init__(one_line(message))
