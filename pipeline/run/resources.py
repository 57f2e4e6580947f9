"""Connects to Ray, and divides a cluster's CPUs and GPUs among a run's operators."""

import logging
import os
import signal
import socket
import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import ray

from pipeline.config import AnnotateConfig, check_precision
from pipeline.errors import UserError
from pipeline.run import local_ray
from pipeline.run.watchdog import StalledError
from ugrie.text import one_line

logger = logging.getLogger(__name__)
ANSWER_SECONDS = 10.0
RAY_CLIENT_PORT = 10001  # of ray:// without a port
SHARES = 10_000  # Ray counts GPUs in parts of this size


@dataclass(frozen=True)
class Allocation:
    """The CPUs and GPUs that each operator's tasks and actors request from Ray, and how many run at once.

    Ray Data waits for ever, silently, for a task that can't fit beside the actors. So the actors of a run request at most a quarter of
    the CPUs: the actors of three runs that share a cluster leave room for the tasks of all.

    A cluster that grows begins with `least_actors` of the `actors`. On GPUs both are equal: an actor that waits for a GPU, and needs
    no CPU, makes the autoscaler start a machine.
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
        """Return the settings that the log and the run record state."""
        threads = {} if self.threads is None else {"threads": self.threads}
        return {"device": self.device, "actors": self.actors, **threads, "loaders": self.loaders}


def check_address() -> None:
    """Check that a cluster answers at RAY_ADDRESS: Ray itself would try for many minutes. Raises UserError."""
    address = os.environ.get("RAY_ADDRESS", "")
    if ray.is_initialized() or address in ("", "auto", "local"):
        return
    remedy = "correct RAY_ADDRESS, or unset it to run on this machine alone"
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or (RAY_CLIENT_PORT if parts.scheme == "ray" else None)
    except ValueError:
        host = port = None
    if is_dashboard := address.startswith(("http://", "https://")):
        remedy = f"submit the job there with `ray job submit`, {remedy}"
    if is_dashboard or host is None or port is None:
        raise UserError(f"RAY_ADDRESS is {address}, and should be host:port or ray://host:port: {remedy}")
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS is {address}, and nothing answers there ({error}): start the cluster, {remedy}") from None


def connect_ray() -> None:
    """Join the cluster that the environment names (as under `ray job submit`), or start one on this machine alone (`local_ray`).

    Raises UserError where there is no such cluster.
    """
    local_ray.wait()
    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        check_address()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(logging_level=logging.WARNING, log_to_driver=False)
        except ConnectionError as error:
            remedy = "start one with `ray start --head`, or unset RAY_ADDRESS to run on this machine alone"
            raise UserError(f"RAY_ADDRESS is {address}, and no cluster is found ({one_line(str(error))}): {remedy}") from None
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own handler prints a stack
    else:
        local_ray.start()
        local_ray.wait()


def await_workers(config: AnnotateConfig) -> None:
    """Wait until a CPU, and a GPU where the run needs one, has joined: the head may take no work, and workers may start later.

    The pending task makes the autoscaler start a machine. Raises StalledError after `stall_timeout`.
    """
    gpus = 1 if config.gpus and config.device != "cpu" and _joined() else 0
    if (found := ray.cluster_resources()).get("CPU", 0) and found.get("GPU", 0) >= gpus:
        return
    wanted = "a CPU and a GPU" if gpus else "a CPU"
    logger.info("waiting for a machine with %s to join Ray's cluster", wanted)
    task: Any = ray.remote(num_cpus=1, num_gpus=gpus)(lambda: None)
    ready, _ = ray.wait([task.remote()], timeout=config.stall_timeout)
    if not ready:
        raise StalledError(f"no machine with {wanted} has joined Ray's cluster in {config.stall_timeout:,.0f} s; `ray status` says why")


def _joined() -> bool:
    """Return whether the environment named a cluster. One started on this machine does not grow, whatever the settings say."""
    return bool(os.environ.get("RAY_ADDRESS"))


def allocate(config: AnnotateConfig) -> Allocation:
    """Divide the cluster: half of the CPUs load images and write rows; the GPUs, or the other half, annotate.

    A cluster that grows is divided as it will be, with its first actors as it is. Raises UserError where GPUs are missing.
    """
    found = ray.cluster_resources()
    cpus, gpus = found.get("CPU", 0.0), found.get("GPU", 0.0)
    all_cpus, all_gpus = (max(cpus, config.cpus or 0), max(gpus, config.gpus or 0)) if _joined() else (cpus, gpus)
    if config.device == "cuda" and not all_gpus:
        raise UserError("device is cuda, but Ray has no GPU: start Ray where there is one, or leave device at auto")
    if all_gpus and config.device != "cpu":
        return _on_gpus(config, cpus, all_cpus, all_gpus)
    check_precision(config, "cpu")
    return _on_cpus(config, cpus, all_cpus)


def _on_gpus(config: AnnotateConfig, cpus: float, all_cpus: float, all_gpus: float) -> Allocation:
    check_precision(config, "cuda")
    parts = max(1, int(Decimal(str(round(config.gpus_per_actor, 6))) * SHARES))  # in floats, 1 / 0.1 GPUs may be 9
    most = int(all_gpus) * (SHARES // parts)  # an actor's share is of one GPU, and what is left of it stays idle
    actors = config.num_actors or most
    if actors > most:
        needs = f"{actors} actors with {parts / SHARES:g} of a GPU each need more than the {all_gpus:g} GPUs Ray has"
        raise UserError(f"{needs}: at most {most} fit; lower num_actors or gpus_per_actor")
    loaders, load = _loaders(config, cpus, all_cpus)
    return Allocation(
        device="cuda",
        actors=actors,
        least_actors=actors,
        actor_cpus=0.0,
        actor_gpus=parts / SHARES,
        threads=None,
        loaders=loaders,
        load=load,
        write=_write(cpus),
    )


def _on_cpus(config: AnnotateConfig, cpus: float, all_cpus: float) -> Allocation:
    actors = config.num_actors or max(1, int(all_cpus // 4))
    least = actors if all_cpus == cpus else min(actors, max(1, int(cpus // 4)))
    loaders, load = _loaders(config, cpus, all_cpus / 2)
    return Allocation(
        device="cpu",
        actors=actors,
        least_actors=least,
        actor_cpus=min(1.0, cpus / 4 / least),
        actor_gpus=0.0,
        threads=min(4, os.cpu_count() or 1),
        loaders=loaders,
        load=load,
        write=_write(cpus),
    )


def _loaders(config: AnnotateConfig, cpus: float, for_loaders: float) -> tuple[int, float]:
    """Return how many loaders run at once, and the CPUs of each."""
    load = min(1.0, cpus / 4, for_loaders / (config.num_loaders or 1))
    return config.num_loaders or max(1, int(for_loaders / load)), load


def _write(cpus: float) -> float:
    """Return the CPUs of a task that writes."""
    return min(0.25, cpus / 8)
