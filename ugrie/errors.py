"""What all errors have in common that tell a user what is wrong with what they gave."""

from ugrie.text import one_line


class GivenError(ValueError):
    """Something that was given is wrong. The message names it and the remedy, as `one_line`."""

    def __init__(self, message: str):
        super().__init__(one_line(message))
