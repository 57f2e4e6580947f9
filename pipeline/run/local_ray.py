"""Starts Ray on this machine alone, in a thread of its own: its processes take seconds, in which the driver has other work."""

import atexit
import logging
import os
import threading

import ray


class LocalRay(threading.Thread):
    """Starts Ray with at least four logical CPUs, so that loading, annotating and writing overlap on a small machine too."""

    def __init__(self) -> None:
        super().__init__(name="ray", daemon=True)
        self.done = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's messages about itself, which nobody can act on here
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves this machine unasked
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")  # a record of each task, for a dashboard that is not there
        cpus = max(4, os.cpu_count() or 1)
        try:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        except BaseException as error:
            self.error = error
        self.done.set()
        threading.Event().wait()  # Ray's processes end with the thread that started them

    def wait(self) -> None:
        """Wait until Ray is there. Raises the error that prevented it."""
        self.done.wait()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Stop Ray. One that is just starting can't be stopped before it is there."""
        self.done.wait()
        ray.shutdown()


_starting: LocalRay | None = None


def start() -> None:
    """Begin to start Ray, unless there is one or the environment names a cluster. Returns at once."""
    global _starting
    if _starting is None and not ray.is_initialized() and not os.environ.get("RAY_ADDRESS"):
        _starting = LocalRay()
        atexit.register(_starting.stop)  # before Ray's own, which can't stop one that is just starting
        _starting.start()


def wait() -> None:
    """Wait for the Ray that `start` has begun to start, if any."""
    global _starting
    starting, _starting = _starting, None
    if starting is not None:
        starting.wait()
