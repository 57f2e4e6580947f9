"""The tower on a GPU that is none (tests/plugins/fake_gpu.py): one graph, copies that are waited for, memory that is full, no compiler."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from ugrie.vision import gpu
from ugrie.vision.batch_size import best_batch_size
from ugrie.vision.encoder import Encoder


@pytest.fixture
def encoder(tower, fake_cuda):
    torch.manual_seed(3)
    encoder = fake_cuda.attach(Encoder.bundled(tower).prepare("cpu", "fp32"))
    encoder.batch_size = 8
    return encoder


@pytest.fixture
def warnings(caplog):
    """Return a function for the messages of the GPU's module. PyTorch's compiler logs much, too."""
    return lambda: [record.message for record in caplog.records if record.name in ("ugrie.vision.gpu", "ugrie.memory")]


def crops(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def expected(encoder, batch):
    with torch.inference_mode():
        return Encoder.embed(encoder, torch.from_numpy(batch)).float()


def test_blocks_of_any_size_take_one_graph(encoder, fake_cuda):
    """Of what is left of a block after failures and reposts. The graph is compiled before the first."""
    encoder.warm_up()
    assert fake_cuda.graphs == [8]
    blocks = [crops(count, count) for count in (1, 255, 256, 180, 7, 8, 9)]
    for block in blocks:
        (embeddings,) = encoder.stream([block])
        torch.testing.assert_close(embeddings, expected(encoder, block))
    (embeddings,) = encoder.stream([crops(0)])
    assert embeddings.shape == (0, 8)
    assert fake_cuda.graphs == [8]
    assert set(fake_cuda.sizes) == {8}


def test_a_stream_is_in_its_order_however_it_was_uploaded(encoder):
    blocks = [crops(count, count) for count in (5, 16, 1)]
    for given in (blocks, (encoder.upload(block) for block in blocks)):
        encoder.warm_up()
        with torch.inference_mode():
            found = list(encoder.stream(given))
        for embeddings, block in zip(found, blocks, strict=True):
            torch.testing.assert_close(embeddings, expected(encoder, block))
    assert list(encoder.stream([])) == []


def test_the_mode_of_the_caller_makes_no_second_graph(encoder, fake_cuda):
    with torch.inference_mode():
        list(encoder.stream([crops(3)]))
    with torch.no_grad():
        list(encoder.stream([crops(3)]))
    list(encoder.stream([crops(3)]))
    assert fake_cuda.graphs == [8]


def test_crops_may_change_once_they_are_uploaded(encoder):
    """As memory of Ray's object store does, when a block is released."""
    encoder.warm_up()
    block = crops(4)
    wanted = expected(encoder, block)
    uploaded = encoder.upload(block)
    block[:] = 0
    torch.testing.assert_close(next(iter(encoder.stream([uploaded]))), wanted)


def test_what_one_stream_made_and_another_uses_is_recorded(encoder, fake_cuda):
    encoder.warm_up()
    uploaded = [encoder.upload(crops(2, seed)) for seed in range(3)]
    list(encoder.stream(uploaded))
    assert {id(each.crops) for each in uploaded} <= fake_cuda.recorded


def test_the_next_batch_is_copied_before_one_is_computed(encoder, fake_cuda):
    encoder.warm_up()
    stream = encoder.stream([crops(1), crops(2), crops(3)])
    next(stream)
    assert encoder.gpu.copies.begun == 3  # that of the warm-up, and of two batches
    assert encoder.gpu.copies.done == 2


@pytest.mark.parametrize(("memory", "size"), [(8, 8), (7, 4), (3, 2), (1, 1)])
def test_a_memory_that_is_too_small_for_the_warm_up_halves_the_batch(encoder, fake_cuda, warnings, memory, size):
    fake_cuda.memory = memory
    encoder.warm_up()
    assert encoder.batch_size == size
    assert len(warnings()) == {8: 0, 4: 1, 2: 2, 1: 3}[size]
    block = crops(13)
    torch.testing.assert_close(next(iter(encoder.stream([block]))), expected(encoder, block))
    assert fake_cuda.graphs == [size]


def test_a_memory_that_fills_up_in_work_loses_nothing(encoder, fake_cuda, warnings):
    encoder.warm_up()
    block, sizes = crops(29), iter([8, 8, 3])
    embed = encoder.gpu.embed

    def shrinking(part):
        fake_cuda.memory = next(sizes, fake_cuda.memory)
        return embed(part)

    encoder.gpu.embed = shrinking
    torch.testing.assert_close(next(iter(encoder.stream([block]))), expected(encoder, block))
    assert encoder.gpu.portions.size == 2
    assert warnings() == [f"the GPU's memory is full: from now on {n} crops at once" for n in (4, 2)]


def test_no_memory_for_one_crop_is_an_error(encoder, fake_cuda):
    fake_cuda.memory = 0
    with pytest.raises(torch.OutOfMemoryError):
        encoder.warm_up()


def test_a_batch_that_finds_no_memory_to_be_copied_to_is_copied_part_by_part(encoder, fake_cuda):
    encoder.warm_up()
    fake_cuda.memory = 8
    block = crops(29)
    assert encoder.upload(block) is block
    torch.testing.assert_close(next(iter(encoder.stream([block]))), expected(encoder, block))
    assert encoder.gpu.portions.size == 8


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_compiler_that_runs_out_of_memory_is_there(encoder, fake_cuda, wrapped):
    """Inductor wraps the error in one of its own."""
    embed = encoder.gpu.embed

    def small(part):
        if len(part) > 4:
            full = torch.OutOfMemoryError("CUDA out of memory")
            if not wrapped:
                raise full
            raise RuntimeError("backend failed") from full
        return embed(part)

    encoder.gpu.embed = small
    encoder.warm_up()
    assert (encoder.batch_size, encoder.gpu.problem) == (4, None)


def test_an_image_too_large_for_the_precision_is_embedded_in_float32(tower, fake_cuda, warnings):
    encoder = Encoder.bundled(tower).prepare("cpu", "fp16")
    fake_cuda.attach(encoder)
    encoder.batch_size = 4
    encoder.warm_up()
    embed = encoder.gpu.embed

    def overflowing(part):
        found = embed(part)
        found[part[:, 0, 0, 0] == 7] = torch.inf
        return found

    encoder.gpu.embed = overflowing
    block = crops(6)
    block[:, 0, 0, 0] = [1, 7, 2, 3, 7, 5]
    (found,) = encoder.stream([block])
    exact = Encoder.bundled(tower)
    exact.tower.load_state_dict(encoder.tower.float().state_dict())
    assert found.isfinite().all()
    assert encoder.gpu.overflowed
    torch.testing.assert_close(found[[1, 4]], expected(exact, block)[[1, 4]])
    assert warnings() == ["1 images are too large for the tower's precision: they are embedded in float32"] * 2
    assert all(name.startswith("tower.") for name in encoder.state_dict())


@pytest.mark.slow
def test_pytorchs_own_compiler_makes_one_graph_that_says_the_same(tower):
    """On the CPU, where it needs a C++ compiler; with the options that are used on a GPU."""
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    torch._dynamo.reset()
    encoder = Encoder.bundled(tower).prepare("cpu", "bf16")
    embed = gpu.compiled(encoder.embed)
    batch = torch.from_numpy(crops(4))
    with torch.inference_mode():
        torch.testing.assert_close(embed(batch).float(), encoder(batch), atol=0.05, rtol=0.05)


def test_without_a_compiler_the_tower_runs_as_it_is_after_one_warning(encoder, fake_cuda, warnings):
    """Triton needs a C compiler, which many images of containers lack."""
    fake_cuda.compiler = RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")
    encoder.warm_up()
    assert "Failed to find C compiler" in encoder.gpu.problem
    for block in (crops(3), crops(20)):
        torch.testing.assert_close(next(iter(encoder.stream([block]))), expected(encoder, block))
    (said,) = warnings()
    assert said.startswith("the image tower can't be compiled (")
    assert "Failed to find C compiler" in said
    assert said.endswith("): it runs uncompiled, which takes longer")
    assert "\n" not in said
    assert fake_cuda.graphs == []


def test_an_error_of_the_tower_itself_is_no_missing_compiler(encoder):
    encoder.gpu.embed = encoder.gpu.eager = lambda crops: 1 / 0
    with pytest.raises(ZeroDivisionError):
        encoder.warm_up()


@pytest.fixture
def backends():
    """PyTorch's settings for GPUs, which the test may change."""
    settings = [
        (torch.backends.cuda.matmul, "allow_tf32"),
        *((torch.backends.cudnn, n) for n in ("allow_tf32", "benchmark", "deterministic")),
    ]
    before = [getattr(*setting) for setting in settings]
    yield torch.backends
    for setting, value in zip(settings, before, strict=True):
        setattr(*setting, value)


def test_float32_products_are_float32_and_no_kernel_is_chosen_by_timing(backends):
    matmul, cudnn = backends.cuda.matmul, backends.cudnn
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = True
    gpu.exact_products()
    assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)  # PyTorch's compiler reads both, which some settings make an error
    assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
    assert not backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    assert not backends.cuda.matmul.allow_bf16_reduced_precision_reduction


def test_two_calls_at_once_are_answered_as_one_after_the_other(encoder):
    encoder.warm_up()
    blocks = [crops(11, seed) for seed in range(6)]
    with ThreadPoolExecutor(2) as pool:
        uploaded = list(pool.map(encoder.upload, blocks))
        found = [next(iter(encoder.stream([each]))) for each in uploaded]
    for embeddings, block in zip(found, blocks, strict=True):
        torch.testing.assert_close(embeddings, expected(encoder, block))


def test_the_best_batch_size_is_found_where_the_memory_holds_few_crops(tower, monkeypatch):
    encoder = Encoder.bundled(tower)
    embed = Encoder.embed

    def full(self, crops):
        if len(crops) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(self, crops)

    monkeypatch.setattr(Encoder, "embed", full)
    assert best_batch_size(encoder, seconds=0.01) in (1, 2)
