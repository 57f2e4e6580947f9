"""Sandbox: a file that crashes or hangs its decoder, or fills its memory, fails alone."""

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ImageError
from pipeline.images.decode import Decoder, Limits
from pipeline.images.sandbox import Sandbox

LIMITS = Limits(crop_size=32, max_pixels=1_000_000, seconds=1.0, memory=1_000_000_000)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(LIMITS) as sandbox:
        yield sandbox


@pytest.fixture
def poisoned(poison):
    """A sandbox whose decoder reacts to poison files as a faulty decoder would to a file that breaks it."""
    with poison.on_path(), Sandbox(LIMITS) as sandbox:
        yield sandbox


def failure(decoder, data):
    with pytest.raises(ImageError) as error:
        decoder(data)
    return error.value.status, str(error.value)


def test_an_image_is_decoded_as_in_the_worker(sandbox, images):
    for seed in range(3):
        decoded, expected = sandbox(images.jpeg(seed, 90, 60)), Decoder(LIMITS)(images.jpeg(seed, 90, 60))
        assert np.array_equal(decoded.crop, expected.crop)
        assert (decoded.width, decoded.height) == (expected.width, expected.height) == (90, 60)


def test_a_failure_is_named_as_in_the_worker(sandbox, images):
    for data in (b"", b"no image", images.jpeg(1, 300, 200)[:1000], images.png_that_claims(60_000, 60_000)):
        assert failure(sandbox, data) == failure(Decoder(LIMITS), data)


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("segfault", "decoder_crashed", "SIGSEGV"),
        ("abort", "decoder_crashed", "SIGABRT"),
        ("exit", "decoder_crashed", "exit code 3"),
        ("loop", "timeout", "decode_timeout = 1 s"),
        ("memory", "too_large", "decode_memory"),
        ("recursion", "corrupt", "RecursionError"),
    ],
)
def test_what_kills_a_decoder_is_named_and_the_next_image_is_decoded(poisoned, poison, images, kind, status, message):
    assert poisoned(images.jpeg(1)).width == 96
    found, error = failure(poisoned, poison.image(kind))
    assert (found, message in error) == (status, True), error
    assert poisoned(images.jpeg(2)).width == 96


def test_a_process_that_the_system_kills_for_its_memory_did_not_take_too_long(poison, images):
    with poison.on_path(), Sandbox(replace(LIMITS, seconds=30)) as sandbox:
        sandbox(images.jpeg(1))
        threading.Timer(0.2, sandbox.process.kill).start()
        assert failure(sandbox, poison.image("slow 20")) == ("decoder_crashed", "decoding it ended a process of its own with SIGKILL")


def test_it_sees_no_credentials_and_may_write_nothing(poisoned, poison, images, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    assert "File too large" in failure(poisoned, poison.image(f"write {tmp_path / 'out'}"))[1]
    assert (tmp_path / "out").stat().st_size == 0
    assert "hunter2" not in failure(poisoned, poison.image("environment"))[1]


def test_its_process_ends_with_it(images):
    with Sandbox(LIMITS) as sandbox:
        sandbox(images.jpeg(1))
        process = sandbox.process
        assert process.poll() is None
        os.kill(process.pid, 0)
    assert process.returncode == 0


def test_a_process_that_does_not_start_is_no_images_fault(images, monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with Sandbox(LIMITS) as sandbox, pytest.raises(RuntimeError, match="does not start"):
        sandbox(images.jpeg(1))
