"""Progress of a run: a bar on a terminal, otherwise a log line every few seconds."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pipeline.text import duration

logger = logging.getLogger(__name__)
EVERY_SECONDS = 5.0


class Progress:
    """Counts the images of written blocks. Use it as a context manager, and call `add` once per block."""

    def __init__(self, total: int, done: int = 0):
        self.total, self.done, self.failed = total, done, 0
        self.began = self.reported = time.monotonic()
        self.first: tuple[float, int] | None = None  # time of the first block, and images done by then
        self.bar = tqdm(total=total, initial=done, unit=" images", smoothing=0.05, file=sys.stderr) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def add(self, rows: int, ok: int) -> None:
        self.done += rows
        if self.first is None:
            self.first = (time.monotonic(), self.done)
        self.failed += rows - ok
        if self.bar is not None:
            self.bar.set_postfix(failed=self.failed, refresh=False)
            self.bar.update(rows)
        elif time.monotonic() - self.reported >= EVERY_SECONDS or self.done == self.total:
            self.reported = time.monotonic()
            logger.info(self.line())

    @property
    def first_block_seconds(self) -> float | None:
        """Seconds from the start to the first block, or None before it."""
        return self.first and self.first[0] - self.began

    @property
    def rate(self) -> float | None:
        """Images per second since the first block, which leaves out start-up. None before the second block."""
        if self.first is None or self.done == self.first[1]:
            return None
        return (self.done - self.first[1]) / self.seconds_since_first

    @property
    def seconds_since_first(self) -> float:
        """Seconds since the first block, or 0 before it."""
        return max(time.monotonic() - self.first[0], 1e-9) if self.first else 0.0

    def line(self) -> str:
        """Return the log line: images done, failed, per second, and the estimated time left."""
        rate = f", {self.rate:,.1f} images/s, {duration((self.total - self.done) / self.rate)} left" if self.rate else ""
        failed = f", {self.failed:,} of them failed" if self.failed else ""
        return f"{self.done:,} of {self.total:,} images ({self.done / max(self.total, 1):.0%}){failed}{rate}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()
