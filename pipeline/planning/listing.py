"""Lists an input in parts, by tasks on any node. The driver holds the parts' paths, and pieces that are not listed yet."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from pipeline.planning.part import Notes, Part
from pipeline.planning.pieces import MOST_LISTED, Division, Folders, Piece, SingleFile
from pipeline.planning.tasks import Tasks

logger = logging.getLogger(__name__)
TOLD_SECONDS = 60.0  # from one line of progress to the next
FEW_LISTED = 20_000  # files of folders that a task lists while there are too few pieces to keep all busy


@dataclass
class _Node:
    """A piece that is to be listed, or what was found by it: parts, and pieces of what was left, in order."""

    piece: Piece
    found: list["Part | _Node"] = field(default_factory=list)


def list_parts(division: Division, tasks: Tasks[list[Part | Folders]]) -> list[Part]:
    """List all pieces of an input by tasks of a `PieceLister`. Return its parts that have rows, in the order of the listing.

    What was left out is added to the division's. Raises UserError where the input is empty or can't be read, and StorageError.
    """
    nodes: list[_Node] = []
    waiting: deque[_Node] = deque()
    running: dict[int, _Node] = {}
    numbers = count()
    pieces = division.pieces
    more = True
    rows, told = 0, time.monotonic()
    while more or waiting or running:
        most = tasks.most
        if time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            logger.info("%d rows are listed so far; %d pieces of the input are being listed", rows, len(running))
        while more and len(waiting) + len(running) < 2 * most:
            if more := (piece := next(pieces, None)) is not None:
                nodes.append(_Node(piece))
                waiting.append(nodes[-1])
        while waiting and len(running) < most:
            number, node = next(numbers), waiting.popleft()
            tasks.submit(number, node.piece, MOST_LISTED if len(waiting) + len(running) >= most else FEW_LISTED)
            running[number] = node
        if running:
            number, found = tasks.next()
            node = running.pop(number)
            idle = max(1, most - len(running) - len(waiting))
            for each in found:
                if isinstance(each, Folders):
                    new = [_Node(part) for part in each.divided(idle)]
                    node.found += new
                    waiting += new
                else:
                    node.found.append(each)
                    rows += each.rows
    return _collected(division, nodes)


def _collected(division: Division, nodes: list[_Node]) -> list[Part]:
    """Return the parts of all pieces, and note what they left out. Raises UserError where a place that was named, or all, is empty."""
    parts: list[Part] = []
    notes = Notes()
    for node in nodes:
        own = Notes()
        for part in _in_order(node):
            own.add(part.notes)
            if part.rows:
                parts.append(Part(part.path, part.rows))
        notes.add(own)
        if isinstance(node.piece, Folders | SingleFile) and not own.files and division.nothing_below is not None:
            division.left_out.update(notes.left_out)
            raise division.nothing_below(node.piece.place)
    notes.images.check()
    division.left_out.update(notes.left_out)
    division.left_out.update(notes.images.left_out)
    if not parts:
        raise division.nothing_found()
    return parts


def _in_order(node: _Node) -> Iterator[Part]:
    """Yield the parts that were found by a piece, and by those of what it left."""
    ahead: list[Part | _Node] = [node]
    while ahead:
        each = ahead.pop()
        if isinstance(each, Part):
            yield each
        else:
            ahead += reversed(each.found)
