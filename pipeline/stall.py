"""Notices that a run is stuck, and says where. Ray Data itself waits for ever, silently, for what can't come."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")
WARNINGS = 4  # within the time after which a run is given up


class StalledError(RuntimeError):
    """Nothing was written for as long as a run may wait. What was written stays, and the run can be resumed."""


def watched(items: Iterable[T], seconds: float, where: Callable[[], str]) -> Iterator[T]:
    """The items as they come. Warns of a wait that grows long, with what `where` says; raises StalledError after `seconds`.

    The items are taken in a thread, so that the driver's own stays free to look at the clock and to hear signals.
    """
    came: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(maxsize=1)

    def take() -> None:
        try:
            for item in items:
                came.put(("item", item))
            came.put(("end", None))
        except BaseException as error:  # raised again where the items are wanted
            came.put(("error", error))

    threading.Thread(target=take, name="blocks", daemon=True).start()
    while True:
        began = time.monotonic()
        for warning in range(1, WARNINGS + 1):
            try:
                kind, value = came.get(timeout=max(0.0, began + seconds * warning / WARNINGS - time.monotonic()))
                break
            except queue.Empty:
                waited = f"no block was written for {time.monotonic() - began:,.0f} s: {where()}"
                if warning == WARNINGS:
                    raise StalledError(f"{waited} (stall_timeout = {seconds:g} s)") from None
                logger.warning(waited)
        if kind == "end":
            return
        if isinstance(value, BaseException):
            raise value
        yield value  # type: ignore[misc]
