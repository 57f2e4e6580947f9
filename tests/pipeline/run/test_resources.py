"""A cluster's CPUs and GPUs are shared out between operators."""

import pytest
import ray

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run import resources as cluster
from pipeline.run.watchdog import StalledError


def share_out(monkeypatch, resources, **settings):
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    return cluster.share_out(AnnotateConfig(input="in", output="out", **settings))


@pytest.mark.parametrize("num_actors", [None, 1, 3])
@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
def test_all_actors_and_a_task_of_each_other_operator_fit_into_the_cpus(monkeypatch, cpus, num_actors):
    shares = share_out(monkeypatch, {"CPU": float(cpus)}, num_actors=num_actors)
    assert 3 * shares.actors * shares.actor_cpus + shares.load <= cpus  # also beside the actors of two other runs
    assert 3 * shares.actors * shares.actor_cpus + shares.write <= cpus
    assert shares.loaders * shares.load <= max(shares.load, cpus / 2)
    assert shares.device == "cpu"
    assert shares.actors == (num_actors or max(1, cpus // 4))
    assert min(shares.load, shares.write, shares.actor_cpus) > 0


@pytest.mark.parametrize(("gpus", "share", "actors"), [(1, 1.0, 1), (8, 1.0, 8), (1, 0.25, 4), (2, 0.5, 4)])
def test_every_gpu_is_used_where_there_are_some(monkeypatch, gpus, share, actors):
    shares = share_out(monkeypatch, {"CPU": 16.0, "GPU": float(gpus)}, gpus_per_actor=share)
    assert (shares.device, shares.actors, shares.actor_gpus, shares.actor_cpus) == ("cuda", actors, share, 0)


@pytest.mark.parametrize("resources", [{"CPU": 4.0}, {"CPU": 16.0, "GPU": 1.0}])
@pytest.mark.parametrize("num_loaders", [1, 3, 40])
def test_as_many_blocks_as_asked_are_loaded_at_once(monkeypatch, resources, num_loaders):
    shares = share_out(monkeypatch, resources, num_loaders=num_loaders)
    assert shares.loaders == num_loaders
    assert shares.loaders * shares.load <= resources["CPU"] / (1 if "GPU" in resources else 2)


def test_gpus_are_left_alone_where_the_device_is_cpu(monkeypatch):
    shares = share_out(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, device="cpu")
    assert (shares.device, shares.actor_gpus) == ("cpu", 0)


def test_more_actors_than_gpus_are_refused(monkeypatch):
    with pytest.raises(UserError, match=r"3 actors with 0.5 of a GPU each need more than the 1 GPUs Ray has"):
        share_out(monkeypatch, {"CPU": 16.0, "GPU": 1.0}, num_actors=3, gpus_per_actor=0.5)


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    with pytest.raises(UserError, match="device is cuda, but Ray has no GPU"):
        share_out(monkeypatch, {"CPU": 16.0}, device="cuda")


@pytest.fixture
def grows(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")


def test_gpus_that_a_cluster_will_have_are_asked_for_at_once(monkeypatch, grows):
    shares = share_out(monkeypatch, {"CPU": 6.0, "GPU": 1.0}, cpus=90, gpus=5)
    assert (shares.device, shares.actors, shares.least_actors, shares.actor_cpus) == ("cuda", 5, 5, 0)
    assert (shares.loaders, shares.load) == (90, 1)


@pytest.mark.parametrize("there", [4, 8, 16])
def test_cpus_that_a_cluster_will_have_are_not_waited_for(monkeypatch, grows, there):
    shares = share_out(monkeypatch, {"CPU": float(there)}, cpus=64)
    assert (shares.actors, shares.least_actors, shares.loaders) == (16, there // 4, 32)
    assert 3 * shares.least_actors * shares.actor_cpus + shares.load <= there  # the others come as CPUs do
    assert shares.actors * shares.actor_cpus <= 64 / 4


def test_a_cluster_that_has_more_than_was_said_is_used_whole(monkeypatch, grows):
    assert share_out(monkeypatch, {"CPU": 64.0}, cpus=8) == share_out(monkeypatch, {"CPU": 64.0})


def test_this_machine_alone_does_not_grow(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert share_out(monkeypatch, {"CPU": 4.0}, cpus=90, gpus=5) == share_out(monkeypatch, {"CPU": 4.0})


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
    assert cluster.share_out(AnnotateConfig(input="in", output="out", device="cpu")).actors == 1
