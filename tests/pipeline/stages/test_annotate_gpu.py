"""The second operator on a GPU that is none (tests/plugins/fake_gpu.py): blocks of odd sizes, two at once, memory that fills up."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from pipeline.config import AnnotateConfig
from pipeline.run.plan import prepare
from pipeline.stages.annotate import Annotator, agreed_batch_size

OWN = ["annotated_at", "annotate_seconds"]


class Agreement(dict):
    """A tracker in this process."""

    def agree_on(self, setting, value):
        return self.setdefault(setting, value)

    def enter(self, block, stage):
        """Blocks are not tracked."""

    def settings(self):
        return dict(self)


@pytest.fixture(scope="module")
def plan(corpus, tmp_path_factory):
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path_factory.mktemp("gpu")), run_id="r", block_rows=40, batch_size=5)
    return prepare(config)


@pytest.fixture(scope="module")
def loaded(model_operators, plan):
    return model_operators.load(plan, 0)


@pytest.fixture(scope="module")
def annotated(model_operators, plan, loaded):
    """What the CPU says."""
    return model_operators.annotator(plan)(loaded)


@pytest.fixture
def annotator(model_operators, plan, fake_cuda):
    annotator = Annotator(model_operators.settings(plan))
    encoder = fake_cuda.attach(annotator.model.encoder)
    encoder.warm_up()
    return annotator


def same(found: pa.Table, expected: pa.Table) -> bool:
    """Whether two tables say the same: labels alike, numbers to the last digits, which differ with the order of sums."""
    assert found.schema.equals(expected.schema, check_metadata=True)
    for name in expected.column_names:
        if name in OWN:
            continue
        a, b = found.column(name).combine_chunks(), expected.column(name).combine_chunks()
        if pa.types.is_struct(a.type):
            assert a.is_null().equals(b.is_null())
            assert pc.struct_field(a, 0).type != pa.string() or pc.struct_field(a, 0).equals(pc.struct_field(b, 0))
            np.testing.assert_allclose(
                pc.list_flatten(pc.struct_field(a, "probs")).to_numpy(), pc.list_flatten(pc.struct_field(b, "probs")).to_numpy(), atol=1e-4
            )
        else:
            assert a.equals(b), name
    return True


def test_blocks_of_many_sizes_say_what_the_cpu_says_by_one_graph(annotator, loaded, annotated, fake_cuda):
    for rows in (range(40), range(0, 40, 3), [7], range(1, 40)):
        block = loaded.take(pa.array(list(rows)))
        assert same(annotator(block), annotated.take(pa.array(list(rows))))
    assert fake_cuda.graphs == [5]


def test_two_blocks_at_once_are_annotated_as_one_after_the_other(annotator, loaded, annotated):
    halves = [loaded.slice(0, 20), loaded.slice(20)] * 3
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(annotator, halves))
    for table, expected in zip(found, [annotated.slice(0, 20), annotated.slice(20)] * 3, strict=True):
        assert same(table, expected)


def test_only_what_needs_the_device_has_its_lock(annotator, loaded, monkeypatch):
    """While another block holds the device, a block is read and copied to it; while it is answered, tables are built."""
    held = []
    upload, fill = annotator.model.encoder.upload, "pipeline.stages.annotate.PredictionColumns.fill"
    monkeypatch.setattr(annotator.model.encoder, "upload", lambda crops: held.append(annotator.device.locked()) or upload(crops))
    monkeypatch.setattr(fill, lambda *_: held.append(annotator.device.locked()))
    encode = annotator.model.encode
    monkeypatch.setattr(annotator.model, "encode", lambda batches: held.append(annotator.device.locked()) or encode(batches))
    annotator(loaded)
    assert held == [False, True, False]


def test_a_memory_that_fills_up_costs_no_row(annotator, loaded, annotated, fake_cuda, monkeypatch, caplog):
    fake_cuda.memory = 2
    fill = annotator.model._fill_portion

    def full(encoded, template):
        if len(encoded) > 10:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
        return fill(encoded, template)

    monkeypatch.setattr(annotator.model, "_fill_portion", full)
    assert same(annotator(loaded), annotated)
    assert (annotator.model.encoder.gpu.portions.size, annotator.model.portions.size) == (2, 8)
    assert [record.message for record in caplog.records if "templates" in record.message] == [
        f"the GPU's memory is full: from now on {count} templates at once" for count in (17, 8)
    ]


def test_what_went_otherwise_than_planned_is_told_to_the_driver(annotator, loaded, monkeypatch):
    monkeypatch.setattr(annotator, "settings", replace(annotator.settings, tracker=Agreement()))
    annotator(loaded)
    assert annotator.settings.tracker == {}
    annotator.model.portions.was_full = annotator.model.encoder.gpu.overflowed = True
    annotator(loaded)
    assert annotator.settings.tracker == {"memory_was_full": True, "embedded_in_float32": True}


def test_an_error_in_the_middle_leaves_the_device_to_the_next_block(annotator, loaded, annotated, monkeypatch):
    embed, errors = annotator.model.encoder.gpu.embed, [ValueError("a fault of this block")]

    def fails(crops):
        if errors:
            raise errors.pop()
        return embed(crops)

    monkeypatch.setattr(annotator.model.encoder.gpu, "embed", fails)
    with pytest.raises(ValueError, match="a fault of this block"):
        annotator(loaded)
    assert same(annotator(loaded), annotated)


def test_actors_on_one_kind_of_card_have_one_batch_size_and_another_card_has_its_own(model_operators, plan, monkeypatch):
    asked = replace(model_operators.settings(plan), device="cuda", batch_size=None, block_rows=100, tracker=Agreement())
    found = []
    for card, best in (("A", 64), ("A", 128), ("B", 256), ("B", 32), ("A", 512)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda card=card: card)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr("ugrie.vision.batch_size.best_batch_size", lambda encoder, best=best: best)
        found.append(agreed_batch_size(asked, None))
    assert found == [64, 64, 100, 100, 64]  # 100 is the rows of a block
    assert asked.tracker == {"card": "A", "batch_size": 64, "batch_size on B": 100}
