"""How many crops should go through a tower together, tried on the device itself.

What is best depends on the tower and on the machine's caches: a convolutional tower on a core whose cache holds a layer of four
crops and not of sixty-four takes twice as long over each of the latter, while a GPU is idle with fewer than it has room for.
"""

import time

import torch

from ugrie.vision.encoder import Encoder

ON_CPU = (1, 2, 4, 8, 16, 32)
ON_GPU = (32, 64, 128, 256, 512)
WORTH = 0.97  # a larger batch takes memory: it must be so much quicker
MUCH_WORSE = 1.1
LONG_ENOUGH = 0.1  # seconds that a size is tried


@torch.inference_mode()
def best_batch_size(encoder: Encoder, seconds: float = 2.0) -> int:
    """The number of crops at which one costs least, tried one after another from the least for about so many seconds,
    or until two have cost clearly more.

    On a CPU a part goes through on one core, as `Encoder.stream` does it. Of a size's times the best counts.
    """
    device = encoder.scale.device
    sizes, threads = ON_CPU if device.type == "cpu" else ON_GPU, torch.get_num_threads()
    best, least, worse = sizes[0], float("inf"), 0
    try:
        torch.set_num_threads(1)
        _seconds(encoder, sizes[0])  # to warm up
        began = time.perf_counter()
        for size in sizes:
            if least < float("inf") and time.perf_counter() - began + size * least > seconds:
                break
            times: list[float] = []
            try:
                while sum(times) < LONG_ENOUGH:
                    times.append(_seconds(encoder, size))
            except torch.OutOfMemoryError:
                break
            cost = min(times) / size
            if cost < least * WORTH:
                best, least = size, cost
            worse = worse + 1 if cost > least * MUCH_WORSE else 0
            if worse == 2:  # and so will larger ones be
                break
    finally:
        torch.set_num_threads(threads)
    return best


def _seconds(encoder: Encoder, size: int) -> float:
    device = encoder.scale.device
    crops = torch.zeros(size, encoder.config.crop_size, encoder.config.crop_size, 3, dtype=torch.uint8, device=device)
    clock = time.perf_counter()
    Encoder.embed(encoder, crops)  # not compiled, which would take longer for each size than all else
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - clock
