"""Notices that a run is stuck, and says where. Ray Data itself waits for ever, silently, for what can't come."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")
WARNINGS = 4  # of a wait, the last of which is the end


class StalledError(RuntimeError):
    """Nothing was written for as long as a run may wait. What was written stays, and the run can be resumed."""


class Watch:
    """A thread that looks at the clock while another waits; that one is woken by a signal, which ends its wait."""

    def __init__(self, seconds: float, where: Callable[[], str]):
        self.seconds, self.where = seconds, where
        self.moved = time.monotonic()
        self.over = threading.Event()
        self.waiting = threading.get_ident()
        self.heard = threading.current_thread() is threading.main_thread()  # elsewhere no signal is: a wait is only warned of
        self.thread = threading.Thread(target=self._watch, name="stall", daemon=True)
        self.message = ""

    def __enter__(self) -> "Watch":
        if self.heard:
            self.before = signal.signal(signal.SIGUSR1, self._end)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        if self.heard:
            signal.signal(signal.SIGUSR1, self.before)

    def move(self) -> None:
        self.moved = time.monotonic()

    def _watch(self) -> None:
        seen, warned = self.moved, 0
        while not self.over.wait(max(0.01, self.moved + self.seconds * (warned + 1) / WARNINGS - time.monotonic())):
            if self.moved != seen:
                seen, warned = self.moved, 0
                continue
            warned += 1
            message = f"no block was written for {time.monotonic() - seen:,.0f} s: {self.where()}"
            if warned == WARNINGS and self.moved == seen and not self.over.is_set():
                self.message = f"{message} (stall_timeout = {self.seconds:g} s)"
                if self.heard:
                    signal.pthread_kill(self.waiting, signal.SIGUSR1)
                return
            logger.warning(message)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self.message:
            raise StalledError(self.message)


def watched(items: Iterable[T], seconds: float, where: Callable[[], str]) -> Iterator[T]:
    """The items as they come. Warns of a wait that grows long, with what `where` says; raises StalledError after `seconds`."""
    with Watch(seconds, where) as watch:
        for item in items:
            watch.move()
            yield item
            watch.move()
