"""A cluster's CPUs and GPUs are shared out between operators."""

import socket

import pytest
import ray

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run import resources as cluster
from pipeline.run.watchdog import StalledError


def allocate(monkeypatch, resources, **settings):
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    return cluster.allocate(AnnotateConfig(input="in", output="out", **settings))


@pytest.mark.parametrize("num_actors", [None, 1, 3])
@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
def test_all_actors_and_a_task_of_each_other_operator_fit_into_the_cpus(monkeypatch, cpus, num_actors):
    allocation = allocate(monkeypatch, {"CPU": float(cpus)}, num_actors=num_actors)
    assert 3 * allocation.actors * allocation.actor_cpus + allocation.load <= cpus  # also beside the actors of two other runs
    assert 3 * allocation.actors * allocation.actor_cpus + allocation.write <= cpus
    assert allocation.loaders * allocation.load <= max(allocation.load, cpus / 2)
    assert allocation.device == "cpu"
    assert allocation.actors == (num_actors or max(1, cpus // 4))
    assert min(allocation.load, allocation.write, allocation.actor_cpus) > 0


@pytest.mark.parametrize(
    ("gpus", "share", "actors"),
    [(1, 1.0, 1), (8, 1.0, 8), (1, 0.25, 4), (2, 0.5, 4), (1, 0.1, 10), (1, 0.3333, 3), (3, 0.6, 3), (1, 0.7, 1)],
)
def test_every_gpu_is_used_where_there_are_some(monkeypatch, gpus, share, actors):
    allocation = allocate(monkeypatch, {"CPU": 16.0, "GPU": float(gpus)}, gpus_per_actor=share)
    assert (allocation.device, allocation.actors, allocation.actor_gpus, allocation.actor_cpus) == ("cuda", actors, share, 0)


@pytest.mark.parametrize("resources", [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 1.0}])
@pytest.mark.parametrize("num_loaders", [1, 3, 40])
def test_as_many_blocks_as_asked_are_loaded_at_once(monkeypatch, resources, num_loaders):
    allocation = allocate(monkeypatch, resources, num_loaders=num_loaders)
    assert allocation.loaders == num_loaders
    assert allocation.loaders * allocation.load <= resources["CPU"] / (1 if "GPU" in resources else 2)


@pytest.mark.parametrize("tenths", range(1, 10))
def test_shares_of_gpus_are_counted_without_an_error_of_floats(monkeypatch, tenths):
    for thousandths in (100 * tenths, 100 * tenths - 1):
        allocation = allocate(monkeypatch, {"CPU": 16.0, "GPU": 2.0}, gpus_per_actor=sum([0.001] * thousandths))
        assert allocation.actors == 2 * (1000 // thousandths)
        assert allocation.actor_gpus == pytest.approx(thousandths / 1000, abs=1e-9)


def test_a_share_is_rounded_down_to_the_four_decimals_that_ray_takes(monkeypatch):
    assert allocate(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, gpus_per_actor=1 / 3).actor_gpus == 0.3333


def test_int8_is_refused_where_ray_has_gpus(monkeypatch):
    with pytest.raises(UserError, match="precision = int8 is for CPUs, and this run is for GPUs: leave it at auto, or set device to cpu"):
        allocate(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, precision="int8")
    assert allocate(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, precision="int8", device="cpu").device == "cpu"


def test_fp16_is_refused_where_ray_has_no_gpu(monkeypatch):
    with pytest.raises(UserError, match="precision = fp16 is for GPUs, and this run is for CPUs: leave it at auto, which is fp32"):
        allocate(monkeypatch, {"CPU": 16.0}, precision="fp16")
    assert allocate(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, precision="fp16").device == "cuda"


def test_gpus_are_left_alone_where_the_device_is_cpu(monkeypatch):
    allocation = allocate(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, device="cpu")
    assert (allocation.device, allocation.actor_gpus) == ("cpu", 0)


def test_more_actors_than_gpus_are_refused(monkeypatch):
    with pytest.raises(UserError, match=r"3 actors with 0.5 of a GPU each need more than the 1 GPUs Ray has: at most 2 fit"):
        allocate(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, num_actors=3, gpus_per_actor=0.5)
    with pytest.raises(UserError, match=r"5 actors with 0.6 of a GPU each need more than the 3 GPUs Ray has: at most 3 fit"):
        allocate(monkeypatch, {"CPU": 16.0, "GPU": 3.0}, num_actors=5, gpus_per_actor=0.6)


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    with pytest.raises(UserError, match="device is cuda, but Ray has no GPU"):
        allocate(monkeypatch, {"CPU": 16.0}, device="cuda")


@pytest.fixture
def grows(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")


def test_gpus_that_a_cluster_will_have_are_asked_for_at_once(monkeypatch, grows):
    allocation = allocate(monkeypatch, {"CPU": 6.0, "GPU": 1.0}, cpus=90, gpus=5)
    assert (allocation.device, allocation.actors, allocation.least_actors, allocation.actor_cpus) == ("cuda", 5, 5, 0)
    assert (allocation.loaders, allocation.load) == (90, 1)


@pytest.mark.parametrize("there", [4, 8, 16])
def test_cpus_that_a_cluster_will_have_are_not_waited_for(monkeypatch, grows, there):
    allocation = allocate(monkeypatch, {"CPU": float(there)}, cpus=64)
    assert (allocation.actors, allocation.least_actors, allocation.loaders) == (16, there // 4, 32)
    assert 3 * allocation.least_actors * allocation.actor_cpus + allocation.load <= there  # the others come as CPUs do
    assert allocation.actors * allocation.actor_cpus <= 64 / 4


def test_a_cluster_that_has_more_than_was_said_is_used_whole(monkeypatch, grows):
    assert allocate(monkeypatch, {"CPU": 64.0}, cpus=8) == allocate(monkeypatch, {"CPU": 64.0})


def test_this_machine_alone_does_not_grow(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert allocate(monkeypatch, {"CPU": 4.0}, cpus=90, gpus=5) == allocate(monkeypatch, {"CPU": 4.0})


def test_a_cluster_that_has_what_is_needed_is_not_waited_for(monkeypatch, grows):
    monkeypatch.setattr(ray, "remote", lambda **asked: pytest.fail("a machine was asked for"))
    for resources, settings in [({"CPU": 1.0}, {}), ({"CPU": 6.0, "GPU": 1.0}, {"gpus": 5}), ({"CPU": 6.0}, {"gpus": 5, "device": "cpu"})]:
        monkeypatch.setattr(ray, "cluster_resources", lambda resources=resources: resources)
        cluster.await_workers(AnnotateConfig(input="in", output="out", **settings))


def test_a_machine_that_does_not_come_ends_the_wait(local_ray, grows):
    config = AnnotateConfig(input="in", output="out", gpus=1, stall_timeout=0.2)
    with pytest.raises(StalledError, match="no machine with a CPU and a GPU has joined Ray's cluster in 0 s"):
        cluster.await_workers(config)


def test_a_ray_that_is_there_is_joined(local_ray):
    before = ray.get_runtime_context().get_node_id()
    cluster.connect_ray()
    assert ray.get_runtime_context().get_node_id() == before
    assert cluster.allocate(AnnotateConfig(input="in", output="out", device="cpu")).actors == 1


# --- the address of a cluster


@pytest.fixture
def _not_connected(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.mark.usefixtures("_not_connected")
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_said_at_once(monkeypatch, scheme):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(
            UserError, match=f"RAY_ADDRESS is {address}, and nothing answers there .*: start the cluster, correct RAY_ADDRESS"
        ):
            cluster.check_address()
        closed.listen()
        cluster.check_address()


@pytest.mark.usefixtures("_not_connected")
@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("http://head:8265", "submit the job there with `ray job submit`"),
        ("head", "correct RAY_ADDRESS"),
        ("head:many", "correct RAY_ADDRESS"),
        ("s3://bucket", "correct RAY_ADDRESS"),
    ],
)
def test_an_address_that_is_none_of_a_cluster_is_said(monkeypatch, address, remedy):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=f"RAY_ADDRESS is {address}, and should be host:port or ray://host:port: {remedy}"):
        cluster.check_address()


@pytest.mark.usefixtures("_not_connected")
def test_a_cluster_that_ray_does_not_find_is_one_line(monkeypatch):
    def init(**_):
        raise ConnectionError("Could not find any running Ray instance.\nPlease specify one")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"RAY_ADDRESS is auto, and no cluster is found .*: start one with `ray start --head`") as error:
        cluster.connect_ray()
    assert "\n" not in str(error.value)


def test_where_ray_is_to_start_or_is_there_no_address_is_checked(monkeypatch):
    monkeypatch.setattr(cluster.socket, "create_connection", lambda *_: pytest.fail("an address was tried"))
    for address in ("", "auto", "local"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        cluster.check_address()
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    cluster.check_address()
