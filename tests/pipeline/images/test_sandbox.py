"""Sandbox: a file that crashes or hangs its decoder, or fills its memory, fails alone."""

import os
import socket
import threading
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ImageError
from pipeline.images import sandbox as sandbox_module
from pipeline.images.decode import Decoder, Limits
from pipeline.images.sandbox import Sandbox

LIMITS = Limits(crop_size=32, max_pixels=1_000_000, seconds=0.5, memory=1_000_000_000)
PATIENT = replace(LIMITS, seconds=60)  # for what does end


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(PATIENT) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
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
        ("loop", "timeout", "decode_timeout = 0.5 s"),
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


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "MPO")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_decoded_as_in_the_worker(sandbox, images, name):
    with BytesIO() as file:
        images.picture(7, 300, 200).save(file, name)
        data = file.getvalue()
    assert np.array_equal(sandbox(data).crop, Decoder(PATIENT)(data).crop)


@pytest.fixture
def taken_over(poisoned, poison):
    """Returns what came of an attempt of code that runs in the sandbox's process."""
    return lambda *attempt: failure(poisoned, poison.image(" ".join(map(str, ("attempt", *attempt)))))[1]


REFUSED = "ValueError: refused: Operation not permitted"


@pytest.mark.parametrize("attempt", ["parent", "socket", "pipe", "fork", "run", "spawn", "kill", "trace", "root", "limits"])
def test_code_that_takes_it_over_is_refused_what_no_decoder_needs(taken_over, attempt):
    assert taken_over(attempt) == REFUSED


def test_code_that_takes_it_over_reads_changes_and_reaches_nothing(taken_over, tmp_path):
    secret, shared = tmp_path / "auth_token", tmp_path / "shared"
    secret.write_text("hunter2")
    secret.chmod(0o600)
    shared.mkdir()
    (shared / "file").write_text("stays")
    for path in (tmp_path, shared):
        path.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempts = [("connect", server.getsockname()[1]), ("read", secret), ("read", "/etc/passwd"), ("write", shared / "new")]
        attempts += [("write", shared / "file"), ("remove", shared / "file"), ("rename", shared / "file")]
        assert [taken_over(*attempt) for attempt in attempts] == [REFUSED] * len(attempts)
    assert [path.name for path in shared.iterdir()] == ["file"]
    assert (shared / "file").read_text() == "stays"


def test_it_sees_no_credentials_no_home_and_no_file_of_its_worker(poison, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with open(tmp_path / "file", "w") as file, poison.on_path(), Sandbox(LIMITS) as sandbox:
        os.set_inheritable(file.fileno(), True)
        found = failure(sandbox, poison.image("environment"))[1]
        names = {os.readlink(each) for each in Path(f"/proc/{sandbox.process.pid}/fd").iterdir()}
    assert "hunter2" not in found
    assert "'HOME': '/nonexistent'" in found
    assert str(tmp_path / "file") not in names
    assert len(names) <= 4


def test_the_log_says_once_which_protections_are_on(images, caplog):
    sandbox_module._log_protections.cache_clear()
    for _ in range(2):
        with Sandbox(LIMITS) as sandbox:
            sandbox(images.jpeg(1))
    sandbox_module._log_protections()
    user = "another user id, " if os.geteuid() == 0 else ""
    machine = "" if os.geteuid() == 0 else "; this machine does not allow another user id"
    assert caplog.messages == [
        f"decoding in a separate process, confined by {user}a filter of system calls, limits of memory and files{machine}",
        "decoding in a separate process, confined by limits of memory and files; "
        "this machine does not allow another user id and a filter of system calls",
    ]


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


def test_it_starts_whatever_the_limit_of_pixels_is(images):
    with Sandbox(replace(PATIENT, max_pixels=1)) as sandbox:
        assert failure(sandbox, images.jpeg(1))[0] == "too_large"
