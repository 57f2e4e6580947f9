"""Text for messages: one printable line, and suggestions for a misspelt word."""

import difflib
from collections.abc import Iterable

LONGEST = 1000  # characters of a message


def one_line(message: str, longest: int = LONGEST) -> str:
    """Return a message as one line of at most `longest` printable characters, whatever user input it quotes.

    Unprintable characters are escaped as in Python. A longer message loses its middle, because its end is the remedy.
    """
    text = " ".join(message.split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= longest else f"{line[: longest // 2].rstrip()} … {line[3 - longest // 2 :].lstrip()}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' (did you mean …?)' with the closest known word, or '' if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""
