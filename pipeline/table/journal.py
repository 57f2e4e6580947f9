"""The journal of an erasure (`ugrie clean --erase`): one is at work at a time, and what it is replacing is known if it dies.

    OUTPUT/_work/_erase/00000001.json

Files are rewritten under new names, which the journal states before they exist. So whoever removes files that no record lists leaves those
alone, and an erasure that follows a dead one finishes what that began. The journal is a lock, too: its owner writes it again every few
seconds. Whoever finds one that stays as it is for half a minute takes over, by creating the one of the next number, which only one can.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import StorageError, UserError
from pipeline.storage.uris import without_secrets
from pipeline.table.output_folder import WORK, OutputFolder

logger = logging.getLogger(__name__)
FOLDER = f"{WORK}/_erase"  # no run's ID begins with an underscore
BEAT_SECONDS = 5.0
DEAD_SECONDS = 30.0  # without a beat


@dataclass
class Unit:
    """Files of the table that are replaced at once: old paths within the output by new ones, or by none where no row is left.

    They are those of a run, or where `run_id` is None those that a table's log lists and no record. `lists` are the lists of a run's files
    before and after.
    """

    run_id: str | None = None
    files: dict[str, str | None] = field(default_factory=dict)
    lists: tuple[str, ...] = ()

    @property
    def paths(self) -> set[str]:
        """All paths, old and new, those of lists too."""
        return {*self.files, *filter(None, self.files.values()), *self.lists}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Unit":
        """Return what a journal states, or an empty one's."""
        return cls(state.get("run_id"), state.get("files", {}), tuple(state.get("lists", ())))


class Journal:
    """The journal of this process: `unit` is what it is replacing, `pages` are paths of pages that are to be written again."""

    def __init__(self, output: OutputFolder, number: int, what: str):
        self.output, self.number, self.what = output, number, what
        self.unit, self.pages = Unit(), list[str]()
        self.owner = uuid.uuid4().hex
        self.beats = 0
        self.written = time.monotonic()
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def note(self, unit: Unit, pages: list[str]) -> None:
        """State what is replaced from now on. Raises StorageError."""
        with self.lock:
            self.unit, self.pages = unit, pages
        self.check()
        self._write()

    def check(self) -> None:
        """Raise StorageError where another process may have taken over, since this one was stopped for too long."""
        if time.monotonic() - self.written > DEAD_SECONDS / 2 or _numbers(self.output)[-1:] != [self.number]:
            raise StorageError(f"{self.what} stopped: it was not heard of for too long, and another may be at work: give the command again")

    def _write(self) -> None:
        with self.lock:
            begun = time.monotonic()
            self.beats += 1
            self.output.write(_path(self.number), self._json())
            self.written = begun

    def _json(self) -> bytes:
        state = {"what": self.what, "by": f"{socket.gethostname()}:{os.getpid()}", "owner": self.owner, "beats": self.beats}
        unit = {"run_id": self.unit.run_id, "files": self.unit.files, "lists": self.unit.lists}
        state |= unit | {"pages": self.pages, "ended": self.ended.is_set()}
        return (json.dumps(state, indent=1) + "\n").encode()

    def _beat(self) -> None:
        while not self.ended.wait(BEAT_SECONDS):
            try:
                if _numbers(self.output)[-1:] != [self.number]:
                    return
                self._write()
            except Exception as error:  # `check` ends the erasure where this lasts
                logger.warning("the journal could not be written: %s", type(error).__name__)


@contextmanager
def alone(output: OutputFolder, what: str) -> Iterator[tuple[Journal, Unit, list[str]]]:
    """Hold the journal, so that no other erasure, nor a compaction, is at work; `what` names this one in messages.

    Yields the journal, and what an erasure that died was replacing, with the pages that it was to write. Raises UserError where another
    process is at work, and StorageError.
    """
    with output.writable():
        journal, before = _taken(output, what)
    beating = threading.Thread(target=journal._beat, name="journal", daemon=True)
    beating.start()
    try:
        yield journal, Unit.of(before), before.get("pages", [])
    finally:
        journal.ended.set()
        beating.join()
        with suppress(Exception):  # if this fails, the next one waits
            if journal.unit.files or journal.pages:
                journal._write()
            else:
                output.remove(_path(journal.number))


def replaced_files(output: OutputFolder) -> set[str]:
    """Return the files and lists, old and new, that an erasure is replacing, or was when it died: they must be left alone.

    To remove a file that no record lists, list it first, then call this, and read the records last: an erasure states a new file here
    before it exists, and no longer once a record lists it.
    """
    while True:
        states = [_read(output, number) for number in _numbers(output)]
        if None not in states:  # else one has ended, or another has taken over
            return set[str]().union(*(Unit.of(state).paths for state in states if state))


def _taken(output: OutputFolder, what: str) -> tuple[Journal, dict[str, Any]]:
    """Create the journal of the next number. Return it with the state of the one before, if there is one."""
    numbers = _numbers(output)
    before: dict[str, Any] | None = {}
    if numbers:
        before = _read(output, numbers[-1])
        if before and not before["ended"]:
            logger.info("%s by %s has not ended: waiting %.0f s for a sign of life", before["what"], before["by"], DEAD_SECONDS)
            _wait_for_life(output, numbers[-1], before)
    journal = Journal(output, (numbers[-1] if numbers else 0) + 1, what)
    if before:
        journal.unit, journal.pages = Unit.of(before), before["pages"]
    if not output.create(_path(journal.number), journal._json()):
        raise UserError(f"another process began to erase or compact {without_secrets(output.uri)} at this moment: wait until it ends")
    for number in numbers:
        with suppress(FileNotFoundError):
            output.remove(_path(number))
    return journal, before or {}


def _wait_for_life(output: OutputFolder, number: int, before: dict[str, Any]) -> None:
    """Return once a journal has not changed for long enough. Raises UserError where it changes, or is gone."""
    end = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, DEAD_SECONDS / 10))
        now = _read(output, number)
        if now is None or now["owner"] != before["owner"] or now["beats"] != before["beats"]:
            uri = without_secrets(output.uri)
            raise UserError(f"{before['what']} of {uri} is at work on {before['by']}: give the command again when it has ended")


def _numbers(output: OutputFolder) -> list[int]:
    return sorted(int(name[:8]) for name in output.names(FOLDER) if name[:8].isdecimal() and name.endswith(".json"))


def _read(output: OutputFolder, number: int) -> dict[str, Any] | None:
    try:
        return json.loads(output.read(_path(number)))
    except FileNotFoundError:
        return None


def _path(number: int) -> str:
    return f"{FOLDER}/{number:08}.json"
