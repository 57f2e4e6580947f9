"""What all errors have in common that tell a user what is wrong with what they gave."""

LONGEST = 1000  # characters


class GivenError(ValueError):
    """Something that was given is wrong. The message names it and the remedy, as `one_line`."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(message: str, longest: int = LONGEST) -> str:
    """A message as one line of at most so many characters, all printable, whatever names and values of a user's it repeats.

    What can't be printed is escaped as in Python. Of a message that is too long the middle is left out: it ends with the remedy.
    """
    text = " ".join(message.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= longest else f"{line[: longest // 2].rstrip()} … {line[3 - longest // 2 :].lstrip()}"
