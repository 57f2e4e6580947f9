"""The Ray a run works on, and how its CPUs and GPUs are shared out."""

import logging
import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run.watchdog import StalledError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shares:
    """What each operator's tasks ask Ray for, and at most how many load at once.

    Ray Data waits for ever, silently, for a task that can't fit beside the actors. So the actors of a run ask for no more than a
    quarter of the CPUs: those of three runs that share a cluster leave room for the tasks of all.

    A cluster that grows begins with `least_actors` of the `actors`. On GPUs these are the same: actors that wait for a GPU, of which
    they take one and no CPU, are what has the autoscaler start a machine.
    """

    device: str
    actors: int
    least_actors: int
    actor_cpus: float
    actor_gpus: float
    threads: int | None
    loaders: int
    load: float
    write: float

    def public(self) -> dict[str, Any]:
        """The settings, as the log and the run's record state them."""
        threads = {} if self.threads is None else {"threads": self.threads}
        return {"device": self.device, "actors": self.actors, **threads, "loaders": self.loaders}


def connect_ray() -> None:
    """Joins the cluster the environment names (as under `ray job submit`), or starts one on this machine alone.

    A local one has at least four logical CPUs, so that loading, annotating and writing overlap on a small machine too.
    """
    if ray.is_initialized():
        return
    handler = signal.getsignal(signal.SIGTERM)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    else:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's notes on itself, which nobody can act on here
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves this machine unasked
        cpus = max(4, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own, which it put there, shows a stack


def await_workers(config: AnnotateConfig) -> None:
    """Waits until there is something to work with: where a cluster's head takes no work, the first machines may be yet to come.

    What is asked for meanwhile is what the autoscaler starts a machine for. Raises StalledError after `stall_timeout`.
    """
    gpus = 1 if config.gpus and config.device != "cpu" and _joined() else 0
    if (there := ray.cluster_resources()).get("CPU", 0) and there.get("GPU", 0) >= gpus:
        return
    wanted = "a CPU and a GPU" if gpus else "a CPU"
    logger.info("waiting for a machine with %s to join Ray's cluster", wanted)
    task: Any = ray.remote(num_cpus=1, num_gpus=gpus)(lambda: None)
    ready, _ = ray.wait([task.remote()], timeout=config.stall_timeout)
    if not ready:
        raise StalledError(f"no machine with {wanted} has joined Ray's cluster in {config.stall_timeout:,.0f} s; `ray status` says why")


def _joined() -> bool:
    """Whether the environment named a cluster. What is started on this machine alone does not grow, whatever a file of settings says."""
    return bool(os.environ.get("RAY_ADDRESS"))


def share_out(config: AnnotateConfig) -> Shares:
    """Half of the CPUs load images and write rows; GPUs, or the other half, annotate. A cluster that grows is shared out as it will be."""
    there = ray.cluster_resources()
    has_cpus, has_gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    cpus, gpus = (max(has_cpus, config.cpus or 0), max(has_gpus, config.gpus or 0)) if _joined() else (has_cpus, has_gpus)
    if config.device == "cuda" and not gpus:
        raise UserError("device is cuda, but Ray has no GPU: start Ray where there is one, or leave device at auto")
    on_gpus = bool(gpus) and config.device != "cpu"
    actors = config.num_actors or max(1, int(gpus / config.gpus_per_actor if on_gpus else cpus // 4))
    if on_gpus and actors * config.gpus_per_actor > gpus:
        raise UserError(f"{actors} actors with {config.gpus_per_actor:g} of a GPU each need more than the {gpus:g} GPUs Ray has")
    for_loaders = cpus if on_gpus else cpus / 2
    load = min(1.0, has_cpus / 4, for_loaders / (config.num_loaders or 1))
    loaders = config.num_loaders or max(1, int(for_loaders / load))
    write = min(0.25, has_cpus / 8)
    if on_gpus:
        return Shares("cuda", actors, actors, 0.0, config.gpus_per_actor, None, loaders, load, write)
    least = actors if cpus == has_cpus else min(actors, max(1, int(has_cpus // 4)))
    return Shares("cpu", actors, least, min(1.0, has_cpus / 4 / least), 0.0, min(4, os.cpu_count() or 1), loaders, load, write)
