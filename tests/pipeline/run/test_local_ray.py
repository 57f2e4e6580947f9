"""Ray is started beside the driver's own work, once, and stopped with it. Ray itself is replaced here; other tests start it."""

import threading

import pytest
import ray

from pipeline.run import local_ray


class Fake:
    """Ray's init, which ends when `go` is set."""

    def __init__(self):
        self.go, self.calls, self.threads, self.error, self.stopped = threading.Event(), [], [], None, 0

    def init(self, **settings):
        self.calls.append(settings)
        self.threads.append(threading.current_thread())
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error

    def is_initialized(self):
        return bool(self.calls) and self.go.is_set() and self.error is None

    def shutdown(self):
        assert self.go.is_set()
        self.stopped += 1


@pytest.fixture
def fake(monkeypatch):
    fake, at_exit = Fake(), []
    for name in ("init", "is_initialized", "shutdown"):
        monkeypatch.setattr(ray, name, getattr(fake, name))
    monkeypatch.setattr(local_ray, "_starting", None)
    monkeypatch.setattr(local_ray.atexit, "register", at_exit.append)
    for name in ("RAY_ADDRESS", "RAY_BACKEND_LOG_LEVEL", "RAY_USAGE_STATS_ENABLED", "RAY_task_events_report_interval_ms"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    fake.at_exit = at_exit
    yield fake
    fake.go.set()


def test_ray_starts_in_a_thread_that_lives_on(fake):
    local_ray.start()
    local_ray.start()
    assert not fake.go.is_set()
    fake.go.set()
    local_ray.wait()
    assert len(fake.calls) == 1
    assert (fake.calls[0]["address"], fake.calls[0]["num_cpus"] >= 4) == ("local", True)
    assert fake.threads[0].is_alive()
    assert fake.threads[0].daemon
    local_ray.start()
    local_ray.wait()
    assert len(fake.calls) == 1


def test_an_error_of_the_start_is_raised_by_who_waits_for_it(fake):
    fake.error = OSError("no room")
    fake.go.set()
    local_ray.start()
    with pytest.raises(OSError, match="no room"):
        local_ray.wait()


def test_a_ray_that_is_still_starting_is_stopped_once_it_is_there(fake):
    local_ray.start()
    (stop,) = fake.at_exit
    threading.Timer(0.05, fake.go.set).start()
    stop()
    assert fake.stopped == 1


def test_no_ray_is_started_where_the_environment_names_a_cluster(fake, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    local_ray.start()
    local_ray.wait()
    assert fake.calls == []
