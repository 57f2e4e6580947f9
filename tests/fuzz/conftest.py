"""Fuzzing of UGRIE's front doors: whatever comes in, the answer is a valid value or the door's own error, soon, and in one line.

    make fuzz SECONDS=600

Without a budget, as among the other tests, every target tries the same few inputs each time, within seconds. With
UGRIE_FUZZ_SECONDS each explores at random for that long, and prints how many inputs it has tried and how they ended. The
input that fails is made as small as can be, printed, and saved in UGRIE_FUZZ_FOLDER (by default a temporary folder), from
where it can be tried again:

    python tests/fuzz/doors.py FOLDER/image-0123456789ab.txt
"""

import hashlib
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("UGRIE_FUZZ_SECONDS", 0))
HANGS = 30  # seconds after which an input hangs its door; most take milliseconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(SECONDS + 900))  # making a failing input small takes a while
            item.add_marker("slow")


# --- trying an input --------------------------------------------------------------------------------------------------------


class Doors:
    """The process of doors.py, started anew whenever an input has ended it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as this

    def attempt(self, door: str, given: Any, files: Mapping[bytes | str, bytes]) -> tuple[str, str]:
        """Return the answer of a door, valid or the name of its error, and the message. Fail the test on any other answer."""
        self.log.seek(0)  # the process's own place in it as well
        self.log.truncate()
        if self.process is None:
            command = [sys.executable, str(Path(__file__).with_name("doors.py"))]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "HOME": "/nowhere"}
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        pickle.dump((door, given, dict(files), HANGS), self.process.stdin)
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], HANGS + 5)[0]:
            raise AssertionError(f"no answer within {HANGS} s; it was at\n{self.end()}")
        try:
            outcome, message = pickle.load(self.process.stdout)
        except EOFError:
            code = self.process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise AssertionError(f"the process died: {how}\n{self.end()}") from None
        if outcome == "problem":
            self.end()  # what it holds of memory would count for the next
            raise AssertionError(message)
        return outcome, message

    def end(self) -> str:
        """Ends the process. Returns what it said of its end."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
        self.log.seek(0)
        log = self.log.read().decode(errors="replace")
        return log[max(0, log.find("Fatal Python error"), log.find("Timeout (")) :][:4000]  # without what decoders say before


@pytest.fixture(scope="session")
def doors() -> Iterator[Doors]:
    doors = Doors()
    yield doors
    doors.end()


@pytest.fixture(scope="session")
def kept() -> Path:
    """The folder of inputs that failed."""
    return Path(os.environ.get("UGRIE_FUZZ_FOLDER") or tempfile.mkdtemp(prefix="ugrie-fuzz-failing-"))


@pytest.fixture
def explore(doors: Doors, kept: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[..., Counter[str]]:
    """Tries inputs at a door: what `strategy` draws is its input, or what `trial` makes of it, the input and the files around it.

    `examples` are tried without a budget. Returns how many ended how.
    """

    def run(door: str, strategy: st.SearchStrategy[Any], trial: Callable[[Any], tuple[Any, dict]] | None = None, examples: int = 200):
        outcomes: Counter[str] = Counter()
        last: list[Any] = []

        def check(given: Any) -> None:
            last[:] = trial(given) if trial else (given, {})
            outcome, _ = doors.attempt(door, *last)
            outcomes[outcome] += 1

        options = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck), "phases": set(Phase) - {Phase.explain}}
        begin = time.monotonic()
        try:
            if not SECONDS:
                settings(max_examples=examples, derandomize=True, **options)(_given(strategy, check))()
            while time.monotonic() - begin < SECONDS:
                settings(max_examples=500, **options)(_given(strategy, check))()
        except BaseException as error:
            if last:
                error.add_note(f"The input is saved in {save(kept, door, *last)}")
            raise
        finally:
            if SECONDS:
                rate = sum(outcomes.values()) / (time.monotonic() - begin)
                with capsys.disabled():
                    print(f"\n{request.node.name}: {rate:.0f} inputs a second, {dict(outcomes.most_common())}", flush=True)
        return outcomes

    return run


def _given(strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> Callable[[], None]:
    """A property of its own: hypothesis remembers how often one was run."""

    @given(strategy)
    def holds(given: Any) -> None:
        check(given)

    return holds


def save(folder: Path, door: str, tried: Any, files: Mapping[bytes | str, bytes]) -> Path:
    """Keeps an input as what `Doors.attempt` takes, in Python's notation, and an image or a single file as it is."""
    text = repr((door, tried, files))
    base = folder / f"{door}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    base.with_suffix(".txt").write_text(text, errors="backslashreplace")
    if isinstance(tried, bytes) or len(files) == 1:
        base.with_suffix(".bin").write_bytes(tried if isinstance(tried, bytes) else next(iter(files.values())))
    return base.with_suffix(".txt")
