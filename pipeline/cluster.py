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


@dataclass(frozen=True)
class Shares:
    """What each operator's tasks ask Ray for, and at most how many load at once.

    Ray Data waits for ever, silently, for a task that can't fit beside the actors. So the actors of a run ask for no more than a
    quarter of the CPUs: those of three runs that share a cluster leave room for the tasks of all.
    """

    device: str
    actors: int
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


def share_out(config: AnnotateConfig) -> Shares:
    """Half of the CPUs load images and write rows; GPUs, or the other half, annotate."""
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    if config.device == "cuda" and not gpus:
        raise UserError("device is cuda, but Ray has no GPU: start Ray where there is one, or leave device at auto")
    on_gpus = bool(gpus) and config.device != "cpu"
    actors = config.num_actors or max(1, int(gpus / config.gpus_per_actor if on_gpus else cpus // 4))
    if on_gpus and actors * config.gpus_per_actor > gpus:
        raise UserError(f"{actors} actors with {config.gpus_per_actor:g} of a GPU each need more than the {gpus:g} GPUs Ray has")
    for_loaders = cpus if on_gpus else cpus / 2
    load = min(1.0, cpus / 4, for_loaders / (config.num_loaders or 1))
    loaders = config.num_loaders or max(1, int(for_loaders / load))
    write = min(0.25, cpus / 8)
    if on_gpus:
        return Shares("cuda", actors, 0.0, config.gpus_per_actor, None, loaders, load, write)
    return Shares("cpu", actors, min(1.0, cpus / 4 / actors), 0.0, min(4, os.cpu_count() or 1), loaders, load, write)
