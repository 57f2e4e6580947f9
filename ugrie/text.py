"""Text for messages: one printable line, and suggestions for a misspelt word."""

import difflib
from collections.abc import Iterable

LONGEST = 1000  # characters


def one_line(message: str, longest: int = LONGEST) -> str:
    """A message as one line of at most so many characters, all printable, whatever names and values of a user's it repeats.

    What can't be printed is escaped as in Python. Of a message that is too long the middle is left out: it ends with the remedy.
    """
    text = " ".join(message.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= longest else f"{line[: longest // 2].rstrip()} … {line[3 - longest // 2 :].lstrip()}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean …?)', or nothing where no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""
