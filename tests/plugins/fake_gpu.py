"""A GPU that is none: tensors stay in memory, and streams, events, pinned copies and a full memory behave as CUDA's do.

A copy is not done when it is begun: its target holds garbage, and its source is read, only once somebody has waited for its event. A tensor
that another stream than its own uses has to be recorded there. The tower is traced by PyTorch's own compiler, and its graphs are counted.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest


class Stream:
    """Does its work in order, and not before somebody waits for it."""

    def __init__(self, device: object = None):
        self.waiting: deque[Callable[[], object]] = deque()
        self.done = self.begun = 0
        self.lock = threading.RLock()

    def enqueue(self, work: Callable[[], object]) -> None:
        with self.lock:
            self.waiting.append(work)
            self.begun += 1

    def record_event(self) -> "Event":
        return Event(self, self.begun)

    def wait_event(self, event: "Event") -> None:
        event.finish()


@dataclass
class Event:
    """A moment in a stream's work."""

    stream: Stream
    number: int

    def finish(self) -> None:
        with self.stream.lock:
            while self.stream.done < self.number:
                self.stream.waiting.popleft()()
                self.stream.done += 1


@dataclass
class FakeCuda:
    """`torch.cuda`, as far as `ugrie.vision.gpu` and `ugrie.memory` use it. `memory` is how many crops fit at once."""

    memory: int = 10**9
    compiler: Any = None  # the error that compiling ends with
    graphs: list[int] = field(default_factory=list)  # crops of each graph that was compiled
    sizes: list[int] = field(default_factory=list)  # crops of each call of the tower
    recorded: set[int] = field(default_factory=set)
    emptied: int = 0
    compute: Stream = field(default_factory=Stream)
    current: threading.local = field(default_factory=threading.local)  # as in CUDA, of each thread
    Stream: type = Stream
    Event: type = Event

    def current_stream(self, device: object = None) -> Stream:
        return getattr(self.current, "stream", self.compute)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.current.stream = stream
        try:
            yield
        finally:
            del self.current.stream

    def empty_cache(self) -> None:
        self.emptied += 1

    def take(self, crops: int) -> None:
        """Take memory for crops that are copied or computed at once."""
        import torch

        if crops > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def attach(self, encoder: Any) -> Any:
        """Put an encoder, which is on the CPU, on this GPU."""
        import torch
        from torch._dynamo.backends.debugging import eager

        from ugrie.vision.gpu import Gpu

        torch._dynamo.reset()
        fake, embed = self, encoder.embed

        class FakeGpu(Gpu):
            def pinned(self, count: int) -> torch.Tensor:
                return torch.full((count, self.crop_size, self.crop_size, 3), 77, dtype=torch.uint8)

            def copy(self, host: torch.Tensor) -> torch.Tensor:
                fake.take(len(host))
                target = torch.full_like(host, 255)
                fake.current_stream().enqueue(lambda: target.copy_(host))
                fake.recorded.discard(id(target))
                return target

        def counted(graph: Any, inputs: Any) -> Any:
            if fake.compiler is not None:
                raise fake.compiler
            fake.graphs.append(next(len(each) for each in inputs if each.dtype == torch.uint8))
            return eager(graph, inputs)

        gpu = FakeGpu(embed, encoder.embed_exactly, torch.device("cpu"), encoder.config.crop_size)
        gpu.embed = torch.compile(embed, dynamic=False, fullgraph=True, backend=counted)
        compiled = gpu.embed

        def watched(crops: torch.Tensor) -> torch.Tensor:
            fake.sizes.append(len(crops))
            fake.take(len(crops))
            return compiled(crops)

        gpu.embed = watched
        encoder.gpu = gpu
        return encoder


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    import torch

    from ugrie import memory
    from ugrie.vision import gpu

    fake = FakeCuda()
    for module in (gpu, memory):
        monkeypatch.setattr(module, "cuda", fake)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: fake.recorded.add(id(tensor)))
    return fake
