"""Braces in a path, as in a shell: `{a,b}.tar` and `shard-{000..127}.tar`, as WebDataset's shards are named."""

import re

from pipeline.errors import UserError

MOST = 100_000  # paths that one may stand for
_BRACES = re.compile(r"\{([^{}]*,[^{}]*|(-?\d{1,18})\.\.(-?\d{1,18}))\}")  # the innermost


def expand_braces(path: str) -> list[str]:
    """Return the paths that a path stands for, each once; itself, where it has no such braces. Raises UserError for too many."""
    expanded: dict[str, None] = {}
    waiting = [path]
    while waiting:
        first = waiting.pop()
        match = _BRACES.search(first)
        if match is None:
            expanded[first] = None
            continue
        if len(waiting) + len(expanded) + _count(match) > MOST:
            raise UserError(f"{path} stands for more than {MOST:,} paths: name their folder instead")
        waiting += [f"{first[: match.start()]}{word}{first[match.end() :]}" for word in reversed(_words(match))]
    return list(expanded)


def _count(match: re.Match[str]) -> int:
    return abs(int(match[2]) - int(match[3])) + 1 if match[2] else match[1].count(",") + 1


def _words(match: re.Match[str]) -> list[str]:
    """Return what the braces stand for: the words between commas, or the numbers of a range, as wide as its ends are written."""
    if not match[2]:
        return match[1].split(",")
    first, last = int(match[2]), int(match[3])
    zeros = any(end.lstrip("-").startswith("0") and len(end.lstrip("-")) > 1 for end in match.groups()[1:])
    width = max(len(match[2]), len(match[3])) if zeros else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]
