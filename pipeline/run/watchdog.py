"""Detects that a run is stuck, and reports where. Ray Data itself waits for ever, silently, for what can't come."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")
WARNINGS = 4  # of one wait; the last ends the run
ANSWER_SECONDS = 30.0  # to find out where the run is


class StalledError(RuntimeError):
    """No block was written within the run's timeout. The blocks that were written stay, and the run can be resumed."""


class Watchdog:
    """A thread that times how long the calling thread waits, and ends its wait by a signal."""

    def __init__(self, seconds: float, where: Callable[[float], str]):
        self.seconds, self.where = seconds, where
        self.last_reset = time.monotonic()
        self.stopped = threading.Event()
        self.waiting_thread = threading.get_ident()
        self.can_interrupt = threading.current_thread() is threading.main_thread()  # other threads get no signals, only warnings
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.message = ""

    def __enter__(self) -> "Watchdog":
        if self.can_interrupt:
            self.before = signal.signal(signal.SIGUSR1, self._end)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()
        if self.can_interrupt:
            signal.signal(signal.SIGUSR1, self.before)

    def reset(self) -> None:
        self.last_reset = time.monotonic()

    def _watch(self) -> None:
        seen, warned = self.last_reset, 0
        while not self.stopped.wait(max(0.01, self.last_reset + self.seconds * (warned + 1) / WARNINGS - time.monotonic())):
            if self.last_reset != seen:
                seen, warned = self.last_reset, 0
                continue
            warned += 1
            timeout = ANSWER_SECONDS if warned == WARNINGS else min(ANSWER_SECONDS, self.seconds / WARNINGS)  # no warning delays the end
            message = f"no block was written for {time.monotonic() - seen:,.0f} s: {self.where(timeout)}"
            if warned == WARNINGS and self.last_reset == seen and not self.stopped.is_set():
                self.message = f"{message} (stall_timeout = {self.seconds:g} s)"
                if self.can_interrupt:
                    signal.pthread_kill(self.waiting_thread, signal.SIGUSR1)
                return
            logger.warning(message)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self.message:
            raise StalledError(self.message)


def watched(items: Iterable[T], seconds: float, where: Callable[[float], str]) -> Iterator[T]:
    """Yield the items as they come. Log a warning at each quarter of `seconds` without one; then raise StalledError.

    Both say where the run is: `where` returns it within the seconds that it is given.
    """
    with Watchdog(seconds, where) as watchdog:
        for item in items:
            watchdog.reset()
            yield item
            watchdog.reset()
